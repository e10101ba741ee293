"""Export of a LoRA as an adapter file of llama.cpp (`--lora adapter.gguf`), for a GGUF file of the same base."""

from pathlib import Path

from riyaz.adapters import gguf
from riyaz.export.base import NamedBase
from riyaz.export.check import ExportResult, checked_export, logits
from riyaz.export.targets import Target, lora_of
from riyaz.families import describe


def write(target: Target, work: Path, base: NamedBase) -> ExportResult:
    """Write the adapter as one float32 file, which names no base, and check it on the base."""
    import torch

    from riyaz import models
    from riyaz.layers.swaps import lora

    adapter, tokenizer, family = lora_of(target, "llama.cpp"), target.source.tokenizer(), describe(target.source)
    source_logits, path = logits(target.model(), tokenizer), work / gguf.FILE
    gguf.write(adapter.pairs, path, family, name=work.name)
    written = models.load(target.source, torch.float32)
    lora.attach(written, gguf.read(path, family))
    return checked_export(source_logits, logits(written, tokenizer), work, "gguf-lora", "float32")
