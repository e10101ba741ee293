"""Export of a LoRA as an adapter folder of mlx-lm (`mlx_lm.generate --adapter-path`)."""

from pathlib import Path

from riyaz.adapters import mlx
from riyaz.export.base import NamedBase
from riyaz.export.check import ExportResult, checked_export, logits
from riyaz.export.targets import Target, lora_of
from riyaz.families import describe


def write(target: Target, work: Path, base: NamedBase) -> ExportResult:
    """Write the adapter as a float32 folder and check it on the base."""
    adapter, tokenizer = lora_of(target, "mlx-lm"), target.source.tokenizer()
    source_logits = logits(target.model(), tokenizer)
    mlx.write(adapter.pairs, work, describe(target.source), base=base.name)
    written_logits = logits(Target(target.path, target.source, work).model(), tokenizer)
    return checked_export(source_logits, written_logits, work, "mlx", "float32")
