"""What the processes of a ternary run do that are not its first one: they train as that announces, and print and write
nothing. torch is imported inside functions only."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riyaz import hardware
from riyaz.config import TernarizeConfig
from riyaz.config.option import flag_of
from riyaz.errors import RiyazError
from riyaz.events import quiet
from riyaz.joining import join_start
from riyaz.json_files import from_json
from riyaz.pretraining.folder import PLAN, WORK
from riyaz.ranks import Ranks
from riyaz.results import ELSEWHERE, TERNARIZE, TernarizeRun
from riyaz.sources import open_source
from riyaz.ternarizing.distillation import Distillation
from riyaz.ternarizing.material import ROWS, stored_material


def started_with(model: str, paths: Sequence[Path], options: TernarizeConfig) -> dict[str, object]:
    """What has to be alike in all processes of a run before they begin: the program and its arguments."""
    named = {flag_of(name): value for name, value in asdict(options).items()}
    texts = " ".join(str(path) for path in paths)
    versions = hardware.versions(("riyaz", "torch"))
    return {**versions, "MODEL": model, "TEXT": texts, **named, "the number of threads": hardware.threads()}


def follow(ranks: Ranks, model: str, paths: Sequence[Path], options: TernarizeConfig, out: Path) -> TernarizeRun:
    """Do what the first process announces until the run ends; returns the content of its ternarize.json. Raises
    RiyazError where this process differs from the first one, or that one is gone."""
    distillation: Distillation | None = None
    while order := ranks.first(dict[str, Any]()):
        if order["do"] == "start":
            join_start(ranks, out / WORK, started_with(model, paths, options), order["mark"])
        elif order["do"] == "open":
            distillation = _opened(ranks, model, options.group, order["compute"], out / WORK)
        else:
            assert distillation is not None
            _train(distillation, order)
    return TernarizeRun.read(out / TERNARIZE)


def _opened(ranks: Ranks, model: str, group: int | None, compute: str, work: Path) -> Distillation:
    """The same model, read by this process, and the rows that the first one has gathered."""
    import torch

    from riyaz.models import load

    torch.set_num_threads(hardware.threads())
    try:
        source = open_source(model)
    except RiyazError as error:
        ranks.expect_alike({"the model": str(error)})
        raise
    ranks.expect_alike({"the model": source.sha256()})
    teacher = load(source, getattr(torch, compute))
    return Distillation(source, teacher, stored_material(work / ROWS), group, compute, work, ranks)


def _train(distillation: Distillation, order: dict[str, Any]) -> None:
    from riyaz.train import Diverged, TrainPlan

    plan = from_json(TrainPlan, order["plan"], PLAN, ELSEWHERE)
    valid = distillation.material.valid[: order["valid"]]
    with suppress(Diverged):  # which the first process has found too
        distillation.train(distillation.student(), plan, order["name"], quiet, valid=valid)
