"""A model as transformers loads it: one folder, an adapter merged in float32 and the sum rounded once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.export.check import Written, checked, logits, same_tokenizer
from riyaz.export.targets import Opened, mergeable, own_type
from riyaz.sources import open_source
from riyaz.tokenizer_files import TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from riyaz.tokenizer import Tokenizer


def write(opened: Opened, work: Path, dtype: str | None = None) -> Written:
    """The folder in `dtype`, by default the model's own; with an adapter float32, which loses nothing."""
    from riyaz.layers import lora

    dtype = dtype or ("float32" if opened.adapter else own_type(opened.source))
    tokenizer, model = opened.source.tokenizer(), mergeable(opened)
    wanted = logits(model, tokenizer)
    lora.merge(model)
    return write_model(model, tokenizer, wanted, work, dtype)


def write_model(model: Any, tokenizer: "Tokenizer", wanted: "Tensor", work: Path, dtype: str) -> Written:
    """The folder of a model in memory, opened again: it must give the logits `wanted` (`check.logits`)."""
    import torch

    from riyaz import models

    models.save_hf(model.to(getattr(torch, dtype)), tokenizer, work)
    for name, text in tokenizer.files.templates.items():  # the only place where newer transformers reads them
        (work / TEMPLATES).mkdir(exist_ok=True)
        (work / TEMPLATES / f"{name}.jinja").write_bytes(text.encode())
    del model
    reopened = open_source(work)
    same_tokenizer(tokenizer, reopened.tokenizer(), "hf")
    found = logits(models.load(reopened, torch.float32), reopened.tokenizer())
    return checked(wanted, found, work, "hf", dtype)
