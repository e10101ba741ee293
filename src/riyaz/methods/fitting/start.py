"""The artifact from which training goes on: its LoRA takes the place of an untrained one, and of its head of labels the
rows of those labels that the task still has."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riyaz import adapters
from riyaz.adapters import Adapter
from riyaz.artifact import BASE_FILE, LABELS, Artifact, trained_keys
from riyaz.data.task import Task
from riyaz.families import describe
from riyaz.predictor import LabelHead
from riyaz.sources import Source


@dataclass(frozen=True, eq=False)
class Start:
    """An artifact whose weights part is a LoRA; `target` is what the user called it."""

    target: str
    folder: Path
    document: Artifact

    @property
    def base_name(self) -> str:
        """The path or the name of its base model."""
        beside = self.folder / BASE_FILE
        return str(beside) if beside.is_file() else self.document.source_name()

    @property
    def task(self) -> Task:
        """The task that it has learned."""
        assert self.document.task is not None
        return self.document.task

    @property
    def sha256(self) -> str:
        """The hash of its adapter's tensors."""
        return self.document.checksums[adapters.WEIGHTS]

    @property
    def chain(self) -> list[dict[str, str]]:
        """Name and adapter's hash of this artifact, of the one that it went on from itself, and so on."""
        return [{"name": self.target, "sha256": self.sha256}, *self.document.config.get("from", [])]

    @property
    def learned(self) -> frozenset[str]:
        """The beginnings of the keys of the rows that it has learned, and all before it."""
        return trained_keys(self.folder)

    def adapter(self, source: Source) -> Adapter:
        """Its LoRA for the base. Raises RiyazError."""
        return adapters.read(self.folder, describe(source))

    def label_rows(self, task: Task, source: Source) -> list[np.ndarray | None]:
        """For each label of a task, or choice of its questions, the row (C,) of the artifact's head; None for one that
        it has not."""
        labels = _keys(task)
        if not self.document.weights.label_head:
            return [None] * len(labels)
        width = describe(source).config.hidden_size
        head = LabelHead.read(self.folder / LABELS, self.task.choices, width)
        known = dict(zip(_keys(self.task), head.weight, strict=True))
        return [known.get(label) for label in labels]


def shape_of(adapter: Adapter) -> tuple[int, float, bool]:
    """(rank, α) of most layers of a LoRA, and whether all have these."""
    shapes = Counter((pair.rank, pair.scale * pair.rank) for pair in adapter.pairs.values())
    rank, alpha = shapes.most_common(1)[0][0]
    return rank, int(alpha) if alpha == int(alpha) else alpha, len(shapes) == 1


def _keys(task: Task) -> list[tuple[str, str]]:
    """The name of the question, "" for a closed set, and the label of each row of a head."""
    return [(question.name, label) for question in task.questions for label in question.keys] or [
        ("", label) for label in task.labels
    ]
