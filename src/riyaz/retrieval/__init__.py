"""Retrieval: store documents and find the passages that are nearest to a question."""
