"""What a model computes between a text and its next token: the numbers of the engine that answers, read out, and what
an adaptation changes in them. Nothing here names a method."""

from riyaz.inside.attention import Pattern, patterns, weights
from riyaz.inside.reading import LONGEST, Inside, Lens, message_tokens, read, text_tokens

__all__ = ["LONGEST", "Inside", "Lens", "Pattern", "message_tokens", "patterns", "read", "text_tokens", "weights"]
