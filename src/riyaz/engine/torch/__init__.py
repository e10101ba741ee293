"""The Runner in torch: bf16 where the CPU is quick at it, else float32; and the embedder."""
