"""The Runner in torch, and the embedder."""
