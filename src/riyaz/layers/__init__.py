"""Layers that several families share: elementwise functions, packed attention, replaceable linears, LoRA."""
