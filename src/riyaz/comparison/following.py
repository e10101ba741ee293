"""`riyaz adapt` in several processes: the first one is the command, and the others train what it fits.

The first process measures, plans, chooses and evaluates, with child processes as always. A fit runs in the process
itself, where the others can meet it. torch is imported inside functions only.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riyaz import hardware
from riyaz.comparison.bases import method_of
from riyaz.comparison.fit_part import context_of, fit
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan
from riyaz.config import CompareConfig, DataConfig
from riyaz.config.option import flag_of
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note, quiet
from riyaz.joining import join_start
from riyaz.methods import METHODS
from riyaz.methods.fitting.following import Following
from riyaz.ranks import Lost, Ranks, ToldElsewhere, launched

GO_ON = "the same command goes on"


def expect_shared(method: str) -> None:
    """Raises RiyazError for a method that several processes cannot train together."""
    if launched()[1] > 1 and METHODS[method].build is None:
        able = ", ".join(name for name, each in METHODS.items() if each.build)
        what = f"{method} works in one process only; several processes train {able}"
        raise RiyazError(what, "METHOD", "start it without torchrun")


def started_with(method: str, data: object, data_config: DataConfig, config: CompareConfig) -> dict[str, object]:
    """What has to be alike in all processes of a command before they begin: the program and its arguments."""
    options = {**asdict(data_config), **asdict(config)}
    named = {flag_of(name): value for name, value in options.items() if name not in ("out", "methods", "threads")}
    threads = config.threads or hardware.threads()
    versions, text = hardware.versions(("riyaz", "torch")), str(data) if isinstance(data, Path) else "in memory"
    return {**versions, "METHOD": method, "DATA": text, **named, "--threads": threads}


def use_threads(count: int) -> None:
    """Compute with so many threads from now on."""
    import torch

    hardware.use_threads(count)
    torch.set_num_threads(count)


def fit_together(folder: ComparisonFolder, name: str, part: str, ranks: Ranks, listen: Listen) -> str:
    """Fit one arm on one part's rows in all processes; returns "" on success, else the reason in one line. Raises Lost
    where one of them is gone."""
    settings, plan = folder.settings(), ComparisonPlan.read(folder.path / "plan.json")
    listen(Note(f"{ranks.count} processes train, each with --threads {plan.threads}"))
    ranks.first({"do": "fit", "name": name, "part": part})
    use_threads(plan.threads)
    try:
        fit(folder, settings, plan, name, part, listen, ranks)
    except (Lost, ToldElsewhere):
        raise
    except RiyazError as error:
        return str(error)
    return ""


def follow(ranks: Ranks, folder: ComparisonFolder, alike: dict[str, object]) -> None:
    """Do what the first process announces until the command ends. Raises RiyazError where this process differs from the
    first one, or that one is gone."""
    fitting: Sequence[str] = ()
    following: Following | None = None
    while order := ranks.first(dict[str, Any]()):
        if order["do"] == "start":
            join_start(ranks, folder.path, alike, order["mark"])
        elif order["do"] == "fit":
            fitting, following = (order["name"], order["part"]), None
        else:
            following = following or _following(ranks, folder, *fitting)
            following.train(order)


def _following(ranks: Ranks, folder: ComparisonFolder, name: str, part: str) -> Following:
    """The part of this process in a fit, once the first one has begun to train: what that keeps for later is there."""
    settings, plan = folder.settings(), ComparisonPlan.read(folder.path / "plan.json")
    use_threads(plan.threads)
    source = settings.source_of(settings.base_of(name))
    context = context_of(folder, settings, plan, name, part, source, settings.task, quiet)
    return Following(method_of(name), context, ranks)
