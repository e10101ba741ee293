"""A ternary-trained model packed: two bits a weight and the scales, in the layout that transformers reads.

Nothing is rounded that training did not round in every forward, so the packed model has the logits of the other one.
"""

from pathlib import Path

from riyaz import artifact as artifacts
from riyaz.adapters import CONFIG
from riyaz.engine.opening import expect_memory
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, quiet
from riyaz.export import hf
from riyaz.export.check import ExportResult, logits
from riyaz.export.targets import own_type, publish, workspace
from riyaz.families import describe
from riyaz.sources import Source, open_source
from riyaz.sources.ternary import PER_BYTE

TRAINED = "train one with riyaz pretrain --ternary, or make one with riyaz ternarize"


def pack(target: str, out: Path, listen: Listen = quiet) -> ExportResult:
    """Write a ternary-trained model with its codes and scales in the place of its floats. Raises RiyazError for one
    that was not trained so, and for what holds no such model."""
    import torch

    from riyaz import models
    from riyaz.layers.swaps import ternary

    folder = artifacts.resolve(target)
    if (folder / artifacts.NAME).is_file() or (folder / CONFIG).is_file():
        raise RiyazError("an adapter or an artifact is not packed", str(folder), "pack the ternary model it is used on")
    source = open_source(target)
    _expect_trained(source)
    expect_memory(source, "fp32", copies=2, engine="torch")
    listen(Phase("quantise", f"{source.name} as two bits a weight"))
    model, tokenizer = models.load(source, torch.float32), source.tokenizer()
    before = logits(model, tokenizer)
    ternary.freeze(model)
    with workspace(out) as work:
        written = hf.write_model(model, tokenizer, before, work, own_type(source))
        publish(work, out)
    return ExportResult(
        str(out), "ternary", written.dtype, written.mb, written.difference, written.divergence,
        (f"{source.nbytes / 2**20:,.1f} MB before",),
    )  # fmt: skip


def _expect_trained(source: Source) -> None:
    """Raises RiyazError unless the model has the floats of ternary linears whose rows can be packed."""
    family, where = describe(source), str(source.path)
    if not family.has_ternary:
        what = "was not trained ternary: rounded to -1, 0 and 1 afterwards it would answer nonsense"
        raise RiyazError(f"{source.name} {what}", where, TRAINED)
    if not family.has_masters:
        raise RiyazError(f"{source.name} is packed already", where, "it is served as it is stored")
    for name in family.stored_names:
        rows = family.array(name)[1].shape[0]
        if family.is_ternary(name) and rows % PER_BYTE:
            raise RiyazError(f"{name} has {rows} rows, four of which share a byte", where, "it cannot be packed")


def refuse(source: Source, what: str, hint: str) -> None:
    """Raises RiyazError if the source's model is ternary: `what` cannot be done with one, do `hint` instead."""
    if describe(source).has_ternary:
        raise RiyazError(f"{source.name} is ternary, and {what}", str(source.path), hint)
