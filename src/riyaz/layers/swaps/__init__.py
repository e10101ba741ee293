"""What is put on a model: LoRA, soft prompts, ternary and frozen linears, and how a linear is replaced."""
