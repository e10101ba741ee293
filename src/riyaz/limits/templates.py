"""Riyaz's own pairs: two groups and two endings in one frame, from data/pairs.json, which was written for it.

What is measured is a difference of differences: how much likelier the first ending is than the second after the first
group, less the same after the second group. A rare name or a rare word makes a sentence less likely whatever it says;
in the difference it cancels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from riyaz.limits.ask import text_nats
from riyaz.metrics.crossed import crossed_interval
from riyaz.predictor import PromptedModel


@dataclass(frozen=True)
class Dimension:
    """Frames with {group} and {ending}, pairs of groups and pairs of endings; the first ending is the stereotype of the
    first group."""

    name: str
    compares: str
    frames: tuple[str, ...]
    groups: tuple[tuple[str, str], ...]
    endings: tuple[tuple[str, str], ...]

    @property
    def items(self) -> int:
        """Number of differences of differences."""
        return len(self.frames) * len(self.groups) * len(self.endings)

    def sentences(self) -> list[str]:
        """Every sentence, by frame, pair of groups, pair of endings, group, ending."""
        return [
            _first_letter(frame.format(group=group, ending=ending))
            for frame in self.frames
            for groups in self.groups
            for endings in self.endings
            for group in groups
            for ending in endings
        ]


@dataclass(frozen=True)
class Preference:
    """A dimension's mean difference in nats with its interval, and the share of items above 0."""

    mean: float
    low: float
    high: float
    share: float
    items: int


def read_data(name: str) -> Any:
    """A file of this package's data."""
    return json.loads(files("riyaz.limits").joinpath("data", name).read_text(encoding="utf-8"))


def dimensions() -> list[Dimension]:
    """The dimensions of data/pairs.json."""
    return [
        Dimension(name, part["compares"], tuple(part["frames"]), _tuples(part["groups"]), _tuples(part["endings"]))
        for name, part in read_data("pairs.json")["dimensions"].items()
    ]


def preferences(model: PromptedModel, chosen: Sequence[Dimension]) -> Mapping[str, Preference]:
    """The preference in every dimension; equal sentences are scored once."""
    sentences = list(dict.fromkeys(text for each in chosen for text in each.sentences()))
    nats = dict(zip(sentences, text_nats(model, sentences)))
    return {each.name: _preference(each, np.array([nats[text] for text in each.sentences()])) for each in chosen}


def _preference(dimension: Dimension, nats: np.ndarray) -> Preference:
    """The mean over frames, groups and endings; the interval draws groups and endings anew, as both are examples."""
    shape = (len(dimension.frames), len(dimension.groups), len(dimension.endings), 2, 2)
    cells = nats.reshape(shape)
    differences = (cells[..., 0, 0] - cells[..., 0, 1]) - (cells[..., 1, 0] - cells[..., 1, 1])  # (F, G, E)
    low, high = crossed_interval(differences.mean(axis=0))
    return Preference(float(differences.mean()), low, high, float((differences > 0).mean()), differences.size)


def _tuples(pairs: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in pairs)


def _first_letter(text: str) -> str:
    return text[:1].upper() + text[1:]
