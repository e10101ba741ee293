"""Export of a LoRA or a soft prompt as a PEFT folder. rsLoRA is written as plain LoRA with the α that gives the same
scale, because many tools ignore `use_rslora`."""

from pathlib import Path

from riyaz.adapters import peft, peft_prompt
from riyaz.export.base import NamedBase
from riyaz.export.check import ExportResult, checked_export, logits
from riyaz.export.targets import Target
from riyaz.families import describe


def write(target: Target, work: Path, base: NamedBase) -> ExportResult:
    """Write the adapter as a float32 folder, with the tokenizer, and check it on the base."""
    adapter, tokenizer, family = target.read_adapter(), target.source.tokenizer(), describe(target.source)
    source_logits = logits(target.model(), tokenizer)
    if adapter.soft_prompt is not None:
        peft_prompt.write(adapter.soft_prompt, work, family, base=base.name, revision=base.revision)
    else:
        peft.write(adapter, work, family, base=base.name, revision=base.revision)
    tokenizer.save(work)
    written_logits = logits(Target(target.path, target.source, work).model(), tokenizer)
    return checked_export(source_logits, written_logits, work, "peft", "float32")
