"""Export of a model as a Hugging Face folder: an adapter is merged in float32 and the sum rounded once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.export.check import ExportResult, checked_export, logits, same_tokenizer
from riyaz.export.targets import Target, mergeable, own_type
from riyaz.sources import open_source
from riyaz.text.tokenizer_files import TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from riyaz.text.tokenizer import Tokenizer


def write(target: Target, work: Path, dtype: str | None = None) -> ExportResult:
    """Write the folder, with an adapter merged, in `dtype`; by default in the model's own type, or in float32 if there
    is an adapter."""
    from riyaz.layers.swaps import lora

    dtype = dtype or ("float32" if target.adapter else own_type(target.source))
    tokenizer, model = target.source.tokenizer(), mergeable(target)
    source_logits = logits(model, tokenizer)
    lora.merge(model)
    return write_model(model, tokenizer, source_logits, work, dtype)


def write_model(model: Any, tokenizer: "Tokenizer", source_logits: "Tensor", work: Path, dtype: str) -> ExportResult:
    """Write a model in memory as a folder and check that, opened again, it gives `source_logits` (of
    `check.logits`)."""
    import torch

    from riyaz import models

    models.save_hf(model.to(getattr(torch, dtype)), tokenizer, work)
    for name, text in tokenizer.files.templates.items():  # newer versions of transformers read them only here
        (work / TEMPLATES).mkdir(exist_ok=True)
        (work / TEMPLATES / f"{name}.jinja").write_bytes(text.encode())
    del model
    reopened = open_source(work)
    same_tokenizer(tokenizer, reopened.tokenizer(), "hf")
    written_logits = logits(models.load(reopened, torch.float32), reopened.tokenizer())
    return checked_export(source_logits, written_logits, work, "hf", dtype)
