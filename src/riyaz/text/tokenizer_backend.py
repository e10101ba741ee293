"""The tokenizers package's tokenizer from a parsed tokenizer.json.

Its reader wants a text, which takes most of the time of opening a large vocabulary: writing, parsing and checking it.
Byte-pair encoding is built from the tables themselves; `from_text` is the slow twin, and reads every other kind.
"""

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

SETTINGS = (
    "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
    "ignore_merges",
)  # fmt: skip  # of BPE beside its tables
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token


def build(definition: dict[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer of a parsed tokenizer.json. Raises what the package raises for one that is none."""
    model, added = definition["model"], definition.get("added_tokens") or []
    known = model.get("type") == "BPE" and model.keys() <= {"type", "vocab", "merges", *SETTINGS}
    if not known or not all(entry.keys() == {"id", "content", *FLAGS} for entry in added):
        return from_text(definition)
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    backend = from_text(definition | {"added_tokens": [], "model": empty})
    settings = {name: model[name] for name in SETTINGS if model.get(name) is not None}
    backend.model = models.BPE(vocab=model["vocab"], merges=list(map(tuple, model["merges"])), **settings)
    flags = [{name: entry[name] for name in FLAGS} for entry in added]
    backend.add_tokens([AddedToken(entry["content"], **own) for entry, own in zip(added, flags)])
    return backend


def from_text(definition: dict[str, Any]) -> tokenizers.Tokenizer:
    """As `build`, by the package's own reader."""
    return tokenizers.Tokenizer.from_str(json.dumps(definition))
