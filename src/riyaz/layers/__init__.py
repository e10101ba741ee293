"""What several families share: elementwise functions, packed attention, the weight seam and LoRA."""
