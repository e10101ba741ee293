"""An adapter as PEFT reads it: LoRA or a soft prompt. rsLoRA is written as plain LoRA with the α that gives the same
scale, because many tools ignore the switch."""

import shutil
from pathlib import Path

from riyaz.export.check import Written, checked, logits
from riyaz.export.targets import Opened, no_adapter

FILES = ("adapter_config.json", "adapter_model.safetensors")


def write(opened: Opened, work: Path) -> Written:
    """The folder of the adapter alone, float32."""
    from riyaz.layers import lora
    from riyaz.layers.soft_prompt import SoftPrompt

    if opened.adapter is None:
        raise no_adapter(opened)
    tokenizer, model = opened.source.tokenizer(), opened.model()
    wanted = logits(model, tokenizer)
    if isinstance(model, SoftPrompt):
        for name in FILES:
            shutil.copyfile(opened.adapter / name, work / name)
    else:
        lora.save_peft(model, work, base=opened.base_name())
    del model
    found = logits(Opened(opened.target, opened.source, work).model(), tokenizer)
    return checked(wanted, found, work, "peft", "float32")
