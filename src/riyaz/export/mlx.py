"""A LoRA as mlx-lm reads it (`mlx_lm.generate --adapter-path`)."""

from pathlib import Path

from riyaz.adapters import mlx
from riyaz.export.check import Written, checked, logits
from riyaz.export.targets import Opened, lora_of
from riyaz.families import describe


def write(opened: Opened, work: Path) -> Written:
    """The folder of the adapter alone, float32."""
    adapter, tokenizer = lora_of(opened, "mlx-lm"), opened.source.tokenizer()
    wanted = logits(opened.model(), tokenizer)
    mlx.write(adapter.pairs, work, describe(opened.source), base=opened.base_name())
    written = logits(Opened(opened.target, opened.source, work).model(), tokenizer)
    return checked(wanted, written, work, "mlx", "float32")
