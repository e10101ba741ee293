"""An adapter as PEFT reads it: LoRA or a soft prompt. rsLoRA is written as plain LoRA with the α that gives the same
scale, because many tools ignore the switch."""

import shutil
from pathlib import Path

from riyaz.adapters import CONFIG, WEIGHTS, peft
from riyaz.export.check import Written, checked, logits
from riyaz.export.targets import Opened
from riyaz.families import describe

FILES = (CONFIG, WEIGHTS)


def write(opened: Opened, work: Path) -> Written:
    """The folder of the adapter alone, float32."""
    adapter, tokenizer = opened.read_adapter(), opened.source.tokenizer()
    wanted = logits(opened.model(), tokenizer)
    if adapter.soft_prompt is not None:
        assert opened.adapter is not None
        for name in FILES:
            shutil.copyfile(opened.adapter / name, work / name)
    else:
        peft.write(adapter, work, describe(opened.source), base=opened.base_name())
    written = logits(Opened(opened.target, opened.source, work).model(), tokenizer)
    return checked(wanted, written, work, "peft", "float32")
