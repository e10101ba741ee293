"""A LoRA as llama.cpp reads it (`--lora adapter.gguf`), for a GGUF file of the same base."""

from pathlib import Path

from riyaz.adapters import gguf
from riyaz.export.check import Written, checked, logits
from riyaz.export.targets import Opened, lora_of
from riyaz.families import describe


def write(opened: Opened, work: Path) -> Written:
    """One file of the adapter alone, float32."""
    import torch

    from riyaz import models
    from riyaz.layers import lora

    adapter, tokenizer, family = lora_of(opened, "llama.cpp"), opened.source.tokenizer(), describe(opened.source)
    wanted, path = logits(opened.model(), tokenizer), work / gguf.FILE
    gguf.write(adapter.pairs, path, family, name=work.name)
    again = models.load(opened.source, torch.float32)
    lora.attach(again, gguf.read(path, family))
    return checked(wanted, logits(again, tokenizer), work, "gguf-lora", "float32")
