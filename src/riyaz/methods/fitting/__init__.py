"""What methods share: `Method` and its values, choices on validation rows, and the training of weights."""
