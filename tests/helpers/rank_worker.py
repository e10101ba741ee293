"""What several processes do in tests/training/test_ranks.py: trainings, whose results each writes as JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_llama import Stop, bits, random_rows, small_model, stopping_at

from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.events import Note, Progress
from riyaz.layers.fast import group
from riyaz.ranks import ALONE, Ranks, ToldElsewhere, launched
from riyaz.train import TrainPlan, TrainState, train

PLAN = TrainPlan(steps=16, learning_rate=1e-2, batch_size=6, validate_every=4, checkpoint_every=4, micro_tokens=64,
                 keep_best=False, compute="float32", seed=3)  # fmt: skip
LOCAL = replace(PLAN, checkpoint_every=8)
ROWS, VALID = random_rows(1, 30), random_rows(2, 9)
Result = dict[str, Any]


def fresh() -> Any:
    """The model that all train: one layer, so that its gradients are still several pieces."""
    return small_model(layers=1).requires_grad_(True)


def trained(
    ranks: Ranks, folder: Path, plan: TrainPlan = PLAN, stop: int = 0, rows: Sequence[Row] = ROWS, **more: Any
) -> Result:
    """One run of the training loop, or the rest of it; `stop`: the step after which every process ends it."""
    model, seen, notes = fresh(), [], []
    if ranks.rank:  # whatever they begin with, all go on with what the first process has
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()

    def listen(event: Any) -> None:
        if isinstance(event, Progress):
            seen.append(event.metrics)
        if isinstance(event, Note):
            notes.append(event.text)
        if stop:
            stopping_at(stop)(event)

    state = TrainState()
    try:
        state = train(model, rows, VALID, plan, folder, listen, ranks=ranks, **more)
    except Stop:
        return {"losses": [entry["loss"] for entry in seen], "notes": notes}
    weights = bits(dict(model.named_parameters()))
    return {
        "weights": weights, "losses": [entry["loss"] for entry in seen], "norms": [entry["norm"] for entry in seen],
        "valid": [entry["valid_loss"] for entry in seen if "valid_loss" in entry], "steps": state.step, "notes": notes,
        "best": state.best_step, "last": model.model.norm.weight.tolist(),
    }  # fmt: skip


def refused(work: Callable[[], Any]) -> Result:
    """What a process says that does not train."""
    try:
        work()
    except RiyazError as error:
        return {"error": str(error)}
    except ToldElsewhere:
        return {"error": "told elsewhere"}
    return {"error": ""}


def shortened(ranks: Ranks, folder: Path) -> Result:
    """The clock of the first process says after five steps that the run gets nine; the others' clocks say nothing."""

    def adjust(plan: TrainPlan, step: int) -> TrainPlan:
        return replace(plan, changes=((5, 9),)) if step == 5 and not ranks.rank else plan

    return trained(ranks, folder, adjust=adjust)


def repeated(ranks: Ranks, folder: Path) -> Result:
    """The same run once more, whose gradients are added up in several pieces, the last one shorter."""
    before, group.PIECE = group.PIECE, 3000
    try:
        return trained(ranks, folder)
    finally:
        group.PIECE = before


TRAININGS: dict[str, Callable[[Ranks, Path], Result]] = {
    "float32": lambda ranks, folder: trained(ranks, folder / f"float32-{ranks.count}"),
    "again": lambda ranks, folder: repeated(ranks, folder / f"again-{ranks.count}"),
    "stopped": lambda ranks, folder: trained(ranks, folder / f"stopped-{ranks.count}", stop=11),
    "resumed": lambda ranks, folder: trained(ranks, folder / f"stopped-{ranks.count}"),
    "bfloat16": lambda ranks, folder: trained(
        ranks, folder / f"bfloat16-{ranks.count}", replace(PLAN, compute="bfloat16", keep_best=True)
    ),
    "dropout": lambda ranks, folder: trained(ranks, folder / f"dropout-{ranks.count}", replace(PLAN, dropout=0.1)),
    "one row": lambda ranks, folder: trained(
        ranks, folder / f"row-{ranks.count}", replace(PLAN, batch_size=1, steps=4)
    ),
    "shortened": lambda ranks, folder: shortened(ranks, folder / f"shortened-{ranks.count}"),
    "first part": lambda ranks, folder: trained(ranks, folder / "sizes", stop=5),
    "second part": lambda ranks, folder: trained(ranks, folder / "sizes", stop=9),
    "third part": lambda ranks, folder: trained(ranks, folder / "sizes", stop=13),
    "last part": lambda ranks, folder: trained(ranks, folder / "sizes"),
    "local": lambda ranks, folder: trained(ranks, folder / f"local-{ranks.count}", LOCAL, local_steps=4),
    "local stopped": lambda ranks, folder: trained(
        ranks, folder / f"local-stopped-{ranks.count}", LOCAL, stop=11, local_steps=4
    ),
    "local resumed": lambda ranks, folder: trained(
        ranks, folder / f"local-stopped-{ranks.count}", LOCAL, local_steps=4
    ),
    "local bfloat16": lambda ranks, folder: trained(
        ranks, folder / f"local-bfloat16-{ranks.count}", replace(LOCAL, compute="bfloat16"), local_steps=4
    ),
    "unlike rows": lambda ranks, folder: refused(
        lambda: trained(ranks, folder / "unlike", rows=ROWS[min(ranks.rank, 1) :])
    ),
    "unlike plan": lambda ranks, folder: refused(
        lambda: trained(ranks, folder / "unlike", replace(PLAN, learning_rate=0.01 + ranks.rank))
    ),
}


def join(folder: Path, *names: str) -> None:
    """Join the others, train, and write what came of it."""
    torch.set_num_threads(1)
    ranks = group.Group(*launched())
    results = {name: TRAININGS[name](ranks, folder) for name in names}
    if not ranks.rank:
        torch.set_num_threads(2)
    results["unlike threads"] = refused(lambda: trained(ranks, folder / "unlike"))
    ranks.leave()
    result_file(folder, ranks.count, ranks.rank).write_text(json.dumps(results))


def result_file(folder: Path, count: int, rank: int) -> Path:
    """Where one of so many processes writes."""
    return folder / f"results-{count}-{rank}.json"


def alone(folder: Path, *names: str) -> dict[str, Result]:
    """The same trainings in this process alone."""
    return {name: TRAININGS[name](ALONE, folder) for name in names}
