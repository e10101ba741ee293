"""Blending: the weighted sum of the LoRAs of several artifacts of one base, as a new artifact.

Prompt, task and answer limit are those of the first artifact. Heads of labels are summed with the same weights. A blend
was not trained, so it has no temperature and no validation score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from riyaz import adapters, hardware
from riyaz import artifact as artifacts
from riyaz.adapters import Adapter, Pair, peft
from riyaz.adapters.blend import RankError, reduced, weighted_sum
from riyaz.adapters.peft_config import LARGEST
from riyaz.artifact import BASE_FILE, LABELS, TRAINED, Artifact, BaseModel
from riyaz.data.task import NAMES, Task
from riyaz.errors import RiyazError, few
from riyaz.export.targets import open_artifact, text_files, workspace
from riyaz.families import Family, ModelConfig, describe
from riyaz.files import file_sha256
from riyaz.predictor.label_head import LabelHead

METHOD = "blend"  # by which the artifact says that it was made
WEIGHTS, RANK = "--weights", "--rank"
SUM_TOLERANCE = 1e-6  # within which weights sum to 1
NO_TEMPERATURE = "no temperature is fitted to a blend, so its confidences are not calibrated"


@dataclass(frozen=True)
class BlendResult:
    """The written artifact: what it is the sum of, and what the sum lost if its rank was reduced."""

    path: str
    artifacts: tuple[str, ...]
    weights: tuple[float, ...]
    layers: int
    rank: int  # the largest of a layer
    rank_limit: int | None  # to which the sum was reduced; None: it is exact
    error: float  # of the reduction: the Frobenius norm of the difference over that of the sum, all layers together
    worst_error: float  # of the layer with the largest
    worst_layer: str
    mb: float  # MiB of all files
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """The result in one line, for the terminal."""
        size = f"rank {self.rank} on {self.layers} layers, {self.mb:,.1f} MB"
        loss = "the sum is exact"
        if self.rank_limit is not None:
            where = f", {self.worst_error:.2g} in {self.worst_layer}" if self.worst_layer else ""
            loss = f"relative error of the reduction {self.error:.2g}{where}"
        return f"{self.path}: {sum_in_words(self.artifacts, self.weights)}; {size}; {loss}"


@dataclass(frozen=True)
class Term:
    """An artifact with its weight in the sum, under the name by which the user called it."""

    name: str
    folder: Path
    document: Artifact
    weight: float

    @property
    def base(self) -> BaseModel:
        """The model that it was trained on."""
        assert self.document.base is not None
        return self.document.base

    def record(self) -> dict[str, Any]:
        """What the blend keeps of it."""
        digest = file_sha256(self.folder / artifacts.NAME)
        own = {"artifact": self.name, "weight": self.weight, "method": self.document.method}
        return own | {"sha256": digest, "adapter_sha256": self.document.checksums[adapters.WEIGHTS]}


def blend(
    targets: Sequence[str | Path], out: Path, weights: Sequence[float] | None = None, rank: int | None = None
) -> BlendResult:
    """Write the sum of the LoRAs of artifacts, each times its weight (equal shares without `weights`), as the artifact
    `out`; with `rank` the nearest sum of at most this rank. Raises RiyazError."""
    if len(targets) < 2:
        where = str(targets[0]) if targets else "riyaz blend"
        raise RiyazError("a blend needs at least two artifacts", where, "name those whose adapters are summed")
    if rank is not None and rank < 1:
        raise RiyazError(f"{rank} is too small", RANK, "give at least 1")
    out = Path(out)
    terms = [term_of(target, weight) for target, weight in zip(targets, checked_weights(weights, len(targets)))]
    first, *others = terms
    for other in others:
        _expect_same_base(first, other)
        _expect_same_answers(first, other)
    family = describe(open_artifact(first.folder, first.document).source)
    pairs, error = _sum_of(terms, family, rank)
    with workspace(out) as work:
        peft.write(Adapter(pairs), work, family, base=first.base.name)
        adapters.read(work, family)  # refused here rather than when it is used
        if first.document.weights.label_head:
            _summed_head(terms, family.config.hidden_size).write(work / LABELS)
        files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir()}
        files |= text_files(first.folder, first.document) | _other_files(terms)
        document = _document(terms, pairs, rank, error)
        artifacts.write(out, document, files)
    return BlendResult(
        str(out), tuple(term.name for term in terms), tuple(term.weight for term in terms), len(pairs),
        _largest_rank(pairs), rank, error.overall, error.worst, error.layer,
        sum(path.stat().st_size for path in out.iterdir()) / 2**20, _notes(terms, document),
    )  # fmt: skip


def checked_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One weight for each of so many artifacts; equal shares for None. Raises RiyazError."""
    if weights is None:
        return (1 / count,) * count
    if len(weights) != count:
        what = f"{len(weights)} weight{'s' if len(weights) > 1 else ''} for {count} artifacts"
        raise RiyazError(what, WEIGHTS, "give one number for each, such as 0.5,0.5")
    if not all(map(math.isfinite, weights)):
        raise RiyazError("a weight is not a finite number", WEIGHTS, "give finite numbers")
    if not any(weights):
        raise RiyazError("all weights are 0", WEIGHTS, "give at least one that is not")
    return tuple(map(float, weights))


def term_of(target: str | Path, weight: float) -> Term:
    """The artifact that a target names. Raises RiyazError if its weights are anything but a LoRA."""
    folder = artifacts.resolve(target)
    document = Artifact.read(folder)
    if document.weights.kind != "lora":
        raise RiyazError(f"its weights are {document.weights.kind!r}, no LoRA", str(target), "only LoRAs are blended")
    if document.weights.beside:
        what = f"its answers are those of a LoRA and of {document.weights.beside} together, and only LoRAs are blended"
        raise RiyazError(what, str(target), "name the artifact of the LoRA alone")
    return Term(str(target), folder, document, weight)


def sum_in_words(names: Sequence[str], weights: Sequence[float]) -> str:
    """`0.5 × a + 0.5 × b`."""
    return " + ".join(f"{weight:g} × {name}" for weight, name in zip(weights, names))


def _expect_same_base(first: Term, other: Term) -> None:
    mine, others = first.base, other.base
    if mine.sha256 != others.sha256:
        what = f"was trained on {others.name} ({others.sha256[:12]}), and {first.name} on {mine.name}"
        raise RiyazError(f"{what} ({mine.sha256[:12]})", other.name, "blend artifacts of one base")


def _expect_same_answers(first: Term, other: Term) -> None:
    """Raises RiyazError, which names both artifacts, if their tasks differ in kind or labels, or if only one has a head
    that scores labels."""
    mine, others = first.document.task, other.document.task
    what = ""
    if _kind(mine) != _kind(others):
        what = f"answers with {_kind(others)}, and {first.name} with {_kind(mine)}"
    elif mine is not None and others is not None and mine.labels != others.labels:
        differing = few(sorted(set(mine.labels) ^ set(others.labels)))
        what = f"has other labels than {first.name}" + (f" ({differing})" if differing else "")
    elif mine is not None and others is not None and _choices(mine) != _choices(others):
        what = f"answers other questions than {first.name}"
    elif first.document.weights.label_head != other.document.weights.label_head:
        with_head, without = (first, other) if first.document.weights.label_head else (other, first)
        what = f"{with_head.name} scores its labels by a head, and {without.name} has none"
    if what:
        raise RiyazError(what, other.name, "blend artifacts of one task")


def _kind(task: Task | None) -> str:
    return "text of no stated task" if task is None else NAMES[task.kind]


def _choices(task: Task) -> list[tuple[str, str, tuple[str, ...]]]:
    """The questions of a task in what its head depends on."""
    return [(question.name, question.type, question.keys) for question in task.questions]


def _sum_of(terms: Sequence[Term], family: Family[ModelConfig], rank: int | None) -> tuple[dict[str, Pair], RankError]:
    """The sum of the artifacts' adapters, and what it lost by `rank`. Raises RiyazError for an adapter that is no plain
    LoRA, and for weights too large to be stored."""
    pairs = weighted_sum([_pairs_of(term, family) for term in terms], [term.weight for term in terms])
    alpha = max(pair.scale * pair.rank for pair in pairs.values())
    if not alpha < LARGEST:  # also where it is not a number
        what = f"with these weights an adapter would have an alpha of {alpha:.3g}, and {LARGEST:g} is too large for one"
        raise RiyazError(what, WEIGHTS, "give smaller weights")
    return (pairs, RankError()) if rank is None else reduced(pairs, rank)


def _pairs_of(term: Term, family: Family[ModelConfig]) -> dict[str, Pair]:
    adapter = adapters.read(term.folder, family)
    if adapter.whole:
        what = f"its adapter trained {few(adapter.whole_modules)} whole, and only pairs of matrices are blended"
        raise RiyazError(what, term.name, "choose another artifact")
    return dict(adapter.pairs)


def _summed_head(terms: Sequence[Term], width: int) -> LabelHead:
    """The sum of the heads of labels, each times its artifact's weight."""
    task = terms[0].document.task
    assert task is not None
    heads = [LabelHead.read(term.folder / LABELS, task.choices, width).weight for term in terms]
    weighted = [term.weight * head.astype(np.float64) for term, head in zip(terms, heads)]
    return LabelHead(np.sum(weighted, axis=0).astype(np.float32))


def _other_files(terms: Sequence[Term]) -> dict[str, Path | bytes]:
    """Which rows any of the artifacts was trained on, and the base where it lies beside the first one."""
    files: dict[str, Path | bytes] = {}
    listed = [term.folder / TRAINED for term in terms if TRAINED in term.document.checksums]
    if listed:
        keys = {key for path in listed for key in path.read_text("utf-8").split()}
        files[TRAINED] = "".join(f"{key}\n" for key in sorted(keys)).encode()
    if BASE_FILE in terms[0].document.checksums:
        files[BASE_FILE] = terms[0].folder / BASE_FILE
    return files


def _document(terms: Sequence[Term], pairs: dict[str, Pair], rank: int | None, error: RankError) -> Artifact:
    """The description of the new artifact."""
    first = terms[0].document
    chosen: dict[str, Any] = {
        "sum": sum_in_words([term.name for term in terms], [term.weight for term in terms]),
        "rank": _largest_rank(pairs), "exact": rank is None,
    }  # fmt: skip
    if rank is not None:
        chosen |= {"error": error.overall, "worst_error": error.worst, "worst_layer": error.layer}
    reading = {key: first.config[key] for key in ("reading",) if key in first.config}
    same = {key: each for key, each in first.data.items() if all(term.document.data.get(key) == each for term in terms)}
    return Artifact(
        method=METHOD, text=first.text, weights=first.weights, base=first.base, task=first.task,
        calibrated=all(term.document.calibrated for term in terms), max_new_tokens=first.max_new_tokens,
        config=reading | {"chosen": chosen, "artifacts": [term.record() for term in terms]},
        data=same, versions=hardware.versions(("riyaz", "numpy")),
    )  # fmt: skip


def _notes(terms: Sequence[Term], document: Artifact) -> tuple[str, ...]:
    """What a user must know of the blend, one sentence each."""
    first, notes = terms[0], []
    total = math.fsum(term.weight for term in terms)
    if not math.isclose(total, 1, abs_tol=SUM_TOLERANCE):
        notes.append(f"the weights sum to {total:g}, not to 1")
    others = [term.name for term in terms if _prompt(term) != _prompt(first)]
    if others:
        notes.append(f"the prompt is that of {first.name}; trained with another: {few(others)}")
    if any(term.document.temperature is not None or term.document.temperatures for term in terms):
        notes.append(NO_TEMPERATURE)
    if first.document.calibrated and not document.calibrated:
        notes.append("labels are not corrected by a null prompt, because not every artifact corrects them")
    return tuple(notes)


def _prompt(term: Term) -> tuple[Any, ...]:
    """What decides on the prompt of a row."""
    return term.document.text, term.base.template


def _largest_rank(pairs: dict[str, Pair]) -> int:
    return max(pair.rank for pair in pairs.values())
