"""Text and tokens: chat templates, tokenizers and their files, and where a sentence ends."""
