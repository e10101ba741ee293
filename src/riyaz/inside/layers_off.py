"""Which layers of an adaptation matter for the rows: one layer's change is left out at a time, and the rows are scored
again.

A LoRA without the pairs of one layer is loaded beside the whole one, so nothing is built anew; of a model that was
trained whole, the base's weights of one layer are put back. What is outside the layers (embedding, head, a head of
labels, a soft prompt) stays as it is. A layer that changes no score alone may still matter together with others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from riyaz import adapters, hardware
from riyaz.adapters import Adapter
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.native.plan import places
from riyaz.errors import RiyazError
from riyaz.events import Estimate, Listen, Progress
from riyaz.families import Family, ModelConfig
from riyaz.metrics.calibration import log_losses
from riyaz.metrics.paired import Paired, paired_test
from riyaz.predictor import ModelPredictor, Prediction
from riyaz.scoring import Scores, confidence_fields, predict, score
from riyaz.sources.tensor_files import float32

Variant = Callable[[], Adapter]  # what must be loaded for some layers to be off
Tell = Callable[[int, int], None]  # (done, total)
EVERY = 0  # in place of a layer's number: all of them off


@dataclass(frozen=True, eq=False)
class Answered:
    """The answers to some rows, their scores, the log-probability (n,) of each right label in nats where answers are
    labels with one, and the seconds that it took."""

    predictions: list[Prediction]
    scores: tuple[Scores, np.ndarray | None]
    seconds: float


@dataclass(frozen=True)
class LayerOff:
    """The score without the change of one layer, from 1, or of all (EVERY), and its difference from the score with no
    layer off, on the same rows."""

    layer: int
    score: float
    paired: Paired
    nats: Paired | None  # the same of the log-probability of the right label, where answers are labels with one


@dataclass(frozen=True)
class LayersOff:
    """All layers that the adaptation changes, each off alone, and all of them off where that was measured."""

    layers: tuple[LayerOff, ...]
    every: LayerOff | None


def answer_rows(model: ModelPredictor, task: Task, rows: Sequence[Example], tell: Tell | None = None) -> Answered:
    """The answers to the rows and their scores. `tell` is called with (done, total)."""
    began = time.monotonic()
    predictions = predict(model, rows, tell, task=task)
    of_right = [fields.get("right_probability") for fields in confidence_fields(task, predictions, rows)]
    nats = None if None in of_right else -log_losses(np.array(of_right, float))
    return Answered(predictions, (score(task, predictions, rows), nats), time.monotonic() - began)


def variants(model: ModelPredictor, folder: Path, where: str) -> Mapping[int, Variant]:
    """For each layer that the weights part changes, from 1, what must be loaded so that this layer's change is off; for
    EVERY layer too where that costs no further model. Raises RiyazError where no layer is changed."""
    family = model.lm.runner.family
    assert family is not None, "a model from files"
    off: Mapping[int, Variant] = {}
    if model.adapter is not None:
        off = _without_layer(family, adapters.read(folder, family))
    elif model.bare is not None:
        base = model.bare().runner.family
        assert base is not None, "a model from files"
        if family.has_ternary or base.has_ternary:
            what = "has weights of -1, 0 and 1, in whose place those of its base cannot be put"
            raise RiyazError(what, where, "leave out --layers-off")
        off = _put_back(family, base)
    if not off:
        what = "changes no weights of a layer, so none can be switched off"
        raise RiyazError(what, where, "leave out --layers-off, or give an artifact of lora or full")
    return off


def switched_off(
    model: ModelPredictor, task: Task, rows: Sequence[Example], answered: Answered, off: Mapping[int, Variant],
    listen: Listen,
) -> LayersOff:  # fmt: skip
    """The scores of the rows with each of `variants`; `answered` are those with no layer off."""
    began = time.monotonic()
    listen(Estimate(answered.seconds * len(off), hardware.peak_rss() / hardware.MB, 0.0))
    measured = {}
    for done, (layer, variant) in enumerate(off.items()):
        left = (time.monotonic() - began) / done * (len(off) - done) if done else answered.seconds * len(off)
        listen(Progress("layers off", done, len(off), unit="layers", seconds_left=left))
        measured[layer] = _scored(model, task, rows, answered, layer, variant())
    listen(Progress("layers off", len(off), len(off), unit="layers"))
    every = measured.pop(EVERY, None)
    return LayersOff(tuple(measured.values()), every)


def _scored(
    model: ModelPredictor, task: Task, rows: Sequence[Example], answered: Answered, layer: int, adapter: Adapter
) -> LayerOff:
    name = f"{model.adapter or 'base'}, layer {layer} off"
    model.lm.load(name, adapter)
    try:
        without = answer_rows(replace(model, adapter=name), task, rows)
    finally:
        model.lm.unload(name)
    (now, nats), (before, nats_before) = (each.scores for each in (without, answered))
    paired = paired_test(now.rows, before.rows, now.groups)
    finer = None if nats is None or nats_before is None else paired_test(nats, nats_before, now.groups)
    return LayerOff(layer, now.mean, paired, finer)


def _without_layer(family: Family[ModelConfig], adapter: Adapter) -> Mapping[int, Variant]:
    """The adapter without each of the layers that it changes."""
    count, layer_of = family.config.n_layers, {name: place[0] for name, place in places(family.config).items()}
    of_pair = {path: layer_of.get(f"{path}.weight", count) for path in adapter.pairs}
    of_whole = {path: layer_of.get(path, count) for path in adapter.whole}

    def left(off: set[int]) -> Adapter:
        return replace(
            adapter, pairs={path: pair for path, pair in adapter.pairs.items() if of_pair[path] not in off},
            whole={path: array for path, array in adapter.whole.items() if of_whole[path] not in off},
        )  # fmt: skip

    changed = sorted({*of_pair.values(), *of_whole.values()} - {count})
    if not changed:
        return {}
    return {layer + 1: partial(left, {layer}) for layer in changed} | {EVERY: partial(left, set(changed))}


def _put_back(after: Family[ModelConfig], before: Family[ModelConfig]) -> dict[int, Variant]:
    """The base's weights of each layer of a model that was trained whole; read when they are needed, one layer's at a
    time."""
    of_layer: dict[int, list[str]] = {}
    for name, (layer, _) in places(after.config).items():
        if name in before.stored_names and layer < after.config.n_layers:
            of_layer.setdefault(layer + 1, []).append(name)

    def weights(names: Sequence[str]) -> Adapter:
        return Adapter(whole={name: np.array(float32(*before.array(name))) for name in names})

    return {layer: partial(weights, names) for layer, names in sorted(of_layer.items())}
