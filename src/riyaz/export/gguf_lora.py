"""A LoRA as llama.cpp reads it (`--lora adapter.gguf`), for a GGUF file of the same base."""

from pathlib import Path

from riyaz.export.check import Written, checked, logits
from riyaz.export.gguf import family_of
from riyaz.export.targets import Opened, adapted


def write(opened: Opened, work: Path) -> Written:
    """One file of the adapter alone, float32."""
    import torch

    from riyaz import models
    from riyaz.layers import lora, lora_gguf

    family = family_of(opened.source)
    tokenizer, model = opened.source.tokenizer(), adapted(opened, "llama.cpp")
    wanted, config, path = logits(model, tokenizer), model.config, work / lora_gguf.FILE
    names = family.names(config)
    architecture = family.gguf_metadata(config)["general.architecture"]
    to, back = family.to_gguf_layout, family.from_gguf_layout
    lora_gguf.save(lora.pairs(model), path, architecture, work.name, names, lambda n, rows: to(config, n, rows))
    again = models.load(opened.source, torch.float32)
    lora_gguf.load(again, path, architecture, names, lambda n, rows: back(config, n, rows))
    return checked(wanted, logits(again, tokenizer), work, "gguf-lora", "float32")
