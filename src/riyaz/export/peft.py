"""Export of a LoRA or a soft prompt as a PEFT folder. rsLoRA is written as plain LoRA with the α that gives the same
scale, because many tools ignore `use_rslora`."""

import shutil
from pathlib import Path

from riyaz.adapters import CONFIG, WEIGHTS, peft
from riyaz.export.check import ExportResult, checked_export, logits
from riyaz.export.targets import Target
from riyaz.families import describe

FILES = (CONFIG, WEIGHTS)


def write(target: Target, work: Path) -> ExportResult:
    """Write the adapter as a float32 folder and check it on the base."""
    adapter, tokenizer = target.read_adapter(), target.source.tokenizer()
    source_logits = logits(target.model(), tokenizer)
    if adapter.soft_prompt is not None:
        assert target.adapter is not None
        for name in FILES:
            shutil.copyfile(target.adapter / name, work / name)
    else:
        peft.write(adapter, work, describe(target.source), base=target.base_name())
    written_logits = logits(Target(target.path, target.source, work).model(), tokenizer)
    return checked_export(source_logits, written_logits, work, "peft", "float32")
