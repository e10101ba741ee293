"""Fits a LinearClassifier: cross-validation chooses its features, all rows fit it, rows held out calibrate it.

The labels' own words are rows too, one for each label: with few rows a label its name says much, and a label without
rows can be answered. Every text is described by its similarities to at most LANDMARKS of these rows (Williams and
Seeger 2001): with fewer rows this is the whole regression in fewer numbers, as the best weights lie among the rows.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz.classifiers.folds import folds_of, last_units, units_and_copies, without_copies
from riyaz.classifiers.linear import VECTORS, Document, EmbedderName, LinearClassifier
from riyaz.classifiers.regression import fit_regression
from riyaz.classifiers.terms import READ, TERMS, known_terms, term_rows, vocabulary
from riyaz.metrics.calibration import fit_temperature, log_losses, probabilities, right_probability

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

Progress = Callable[[int, int], None]  # (done, total)
Deal = tuple[np.ndarray, np.ndarray]  # places of the rows that are fitted to, and of those that are held out

LANDMARKS = 1500  # rows whose similarities describe a text, at most
NUMBERS = 2**26  # of all rows' similarities, at most: 256 MB
WEIGHTS = 2**23  # of the terms, at most: 32 MB
SEARCHED = 2**22  # weights that the search moves, at most
# Bytes of memory for each weight that the search moves, each different term, its weight of a label, and each character
# that is read, whose terms are entries of sparse rows
SEARCH_BYTES, TERM_BYTES, WEIGHT_BYTES, ENTRY_BYTES = 200, 300, 8, 80
COUNTED = 200  # texts whose terms are counted to estimate the memory
CHOOSING, CALIBRATING = 5, 10  # folds to choose by (3 choose by chance), and to calibrate by
HELD = 1000  # rows that choose and calibrate where there are more than LANDMARKS, at most (but whole groups)
HELD_SHARE = 5  # and at most one in so many
PROTOTYPES = 10.0  # logits of a text that equals the mean of a label's rows, beside those of the regression
LEAST_LANDMARKS = 64
SIMPLER = 0.002  # nats by which a setting must be better than a simpler one
PART = 4096  # rows whose similarities are computed at once
LEAST_EIGENVALUE = 1e-5  # of the largest one; directions with less are left out


@dataclass(frozen=True)
class Setting:
    """What cross-validation chooses: the scale of each block of features, the inverse strength of the regularisation,
    and whether the labels' names are rows."""

    scales: dict[str, float]
    strength: float
    names: bool = True


# The features that are tried, the simplest first, with the first strength; then the others with the best features.
WITH_VECTORS = ({VECTORS: 1.0}, *({VECTORS: 1.0} | dict.fromkeys(TERMS, scale) for scale in (0.5, 1.0)))
WITHOUT = ({"words": 1.0}, {"pieces": 1.0}, {"words": 1.0, "pieces": 1.0})
STRENGTHS = (30.0, 10.0, 100.0)


@dataclass(frozen=True)
class FittedClassifier:
    """The classifier, what was chosen and tried, and how rows are answered by a classifier that has not seen them."""

    classifier: LinearClassifier
    chosen: dict[str, Any]
    choosing_seconds: float
    held: np.ndarray  # (m,) places of these rows
    logits: np.ndarray  # (m, L) float32 of them, before the temperature

    @property
    def probabilities(self) -> np.ndarray:
        """(m, L) float32 of the rows that were held out, calibrated."""
        return probabilities(self.logits, self.classifier.document.temperature)


def fit_classifier(
    texts: Sequence[str], answers: Sequence[str], labels: Sequence[str], embedder: "Embedder | None", seed: int,
    progress: Progress | None = None, groups: Sequence[str | None] | None = None,
) -> FittedClassifier:  # fmt: skip
    """The classifier of rows whose answers are among `labels`; all its choices are made on these rows. No row is
    answered by one of its group, where `groups` names these, or with its text."""
    place = {label: i for i, label in enumerate(labels)}
    rows = _Rows(texts, np.array([place[answer] for answer in answers]), labels, embedder, seed, progress, groups)
    began = time.perf_counter()
    scaled, setting, tried = _choose(rows)
    choosing_seconds = time.perf_counter() - began
    held, logits = _held_out(scaled, setting, rows.to_calibrate())
    temperature = fit_temperature(logits, rows.accepted(held))
    weights, bias = _fit(scaled, setting, np.arange(rows.count))
    kinds = [kind for kind in setting.scales if kind in TERMS]
    tensors = {"bias": bias, **scaled.by_block(weights), **{f"{kind}.idf": rows.idf[kind] for kind in kinds}}
    used = embedder if VECTORS in setting.scales else None
    name = EmbedderName(used.name, used.sha256) if used else None
    document = Document(list(labels), temperature, {kind: rows.terms[kind] for kind in kinds}, name)
    chosen = {**asdict(setting), "temperature": temperature, "held_out_rows": len(held), "candidates": tried}
    return FittedClassifier(LinearClassifier(document, tensors, used), chosen, choosing_seconds, held, logits)


class _Rows:
    """Rows, then one for the name of each label: their blocks of features and the landmarks among them."""

    def __init__(
        self, texts: Sequence[str], targets: np.ndarray, labels: Sequence[str], embedder: "Embedder | None", seed: int,
        progress: Progress | None, groups: Sequence[str | None] | None = None,
    ) -> None:  # fmt: skip
        self.count, self.labels, self.seed = len(texts), len(labels), seed
        self.units, self.copies = units_and_copies(texts, groups)
        self.targets = np.r_[targets, np.arange(len(labels))]
        whole = [*texts, *map(label_words, labels)]
        self.order = _spread_over(self.targets, seed)
        most = _most_landmarks(len(whole), len(labels))
        self.landmarks, self.many = np.sort(self.order[:most]), most < len(whole)
        self.blocks: dict[str, Any] = {}
        self.terms: dict[str, list[str]] = {}
        self.idf: dict[str, np.ndarray] = {}
        for kind in TERMS:
            known = known_terms(kind, (whole[row] for row in self.landmarks))
            share = max(1, WEIGHTS // len(TERMS) // len(labels))
            terms, self.idf[kind] = vocabulary(kind, whole, known, share)
            self.terms[kind] = terms
            self.blocks[kind] = term_rows(kind, whole, {term: i for i, term in enumerate(terms)}, self.idf[kind])
        if embedder is not None:
            self.blocks[VECTORS] = embedder.embed(whole, progress)

    def accepted(self, places: np.ndarray) -> np.ndarray:
        """Which label is right for each of these rows, (n, L)."""
        return self.targets[places, None] == np.arange(self.labels)

    def folds(self, count: int) -> list[Deal]:
        """Each row held out once, from the regression on the others; at most as many folds as there are units."""
        count = min(count, max(2, int(self.units.max()) + 1))
        folds = folds_of(self.units, self._order, count)
        return [self._deal(folds == fold) for fold in range(count)]

    def to_choose(self) -> list[Deal]:
        """Folds; of many rows some, held out from the regression on the landmarks among the others."""
        if not self.many:
            return self.folds(CHOOSING)
        kept, held = self._part()
        landmarks = kept[np.isin(kept, self.landmarks)]
        return [(landmarks if len(landmarks) else kept, held)]

    def to_calibrate(self) -> list[Deal]:
        """Folds; of many rows the same ones, held out from the regression on all others."""
        return [self._part()] if self.many else self.folds(CALIBRATING)

    def _part(self) -> Deal:
        """A part of the rows held out, from the regression on the others."""
        least = max(1, min(HELD, self.count // HELD_SHARE))
        order = np.random.default_rng(self.seed).permutation(self.count)  # so that labels keep their proportions
        return self._deal(last_units(self.units, order, least))

    def _deal(self, held: np.ndarray) -> Deal:
        kept, order = without_copies(self.copies, held), self._order
        return order[kept[order]], order[held[order]]

    @property
    def _order(self) -> np.ndarray:
        """`order` without the labels' names."""
        return self.order[self.order < self.count]


class _Scaled:
    """The rows with their blocks scaled: features (n, r) float32 whose products are the rows' similarities, as far as
    these lie among the landmarks."""

    def __init__(self, rows: _Rows, scales: Mapping[str, float]) -> None:
        self.rows, self.scales = rows, scales
        values, vectors = np.linalg.eigh(self._similarities(rows.landmarks).astype(np.float64))
        large = values > LEAST_EIGENVALUE * values[-1]
        self.directions = (vectors[:, large] / np.sqrt(values[large])).astype(np.float32)  # (landmarks, r)

    def features(self, places: np.ndarray) -> np.ndarray:
        """Those of the rows at `places`."""
        if not self.rows.many:
            return self._all[places]
        features = np.empty((len(places), self.directions.shape[1]), np.float32)
        for begin in range(0, len(places), PART):
            features[begin : begin + PART] = self._similarities(places[begin : begin + PART]) @ self.directions
        return features

    @cached_property
    def _all(self) -> np.ndarray:
        return self._similarities(np.arange(len(self.rows.targets))) @ self.directions

    def _similarities(self, places: np.ndarray) -> np.ndarray:
        """(n, landmarks) float32."""
        landmarks = self.rows.landmarks
        similar = np.zeros((len(places), len(landmarks)), np.float32)
        for block, scale in self.scales.items():
            rows = self.rows.blocks[block]
            similar += np.float32(scale**2) * _dense(rows[places] @ rows[landmarks].T)
        return similar

    def by_block(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Weights of these features (r, L) as weights of each block's own (features, L) float32."""
        of_landmarks, blocks = self.directions @ weights, self.rows.blocks
        return {
            f"{block}.weights": np.float32(scale**2) * _dense(blocks[block][self.rows.landmarks].T @ of_landmarks)
            for block, scale in self.scales.items()
        }

    @property
    def length(self) -> float:
        """Of a row of features."""
        return float(np.sqrt(sum(scale**2 for scale in self.scales.values())))


def _fit(scaled: _Scaled, setting: Setting, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (r, L) and bias (L,) float32 fitted to the rows at `places`, and to the labels' names where these are
    rows: those of the regression, and the mean of each label's rows."""
    rows = scaled.rows
    if setting.names:
        places = np.r_[places, np.arange(rows.count, len(rows.targets))]
    features, targets = scaled.features(places), rows.targets[places]
    weights, bias = fit_regression(features, targets, rows.labels, setting.strength)
    means = np.zeros((rows.labels, features.shape[1]), np.float32)
    np.add.at(means, targets, features)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.float32(1e-6))
    return weights + np.float32(PROTOTYPES / scaled.length) * means.T, bias


def _held_out(scaled: _Scaled, setting: Setting, deals: Sequence[Deal]) -> tuple[np.ndarray, np.ndarray]:
    """Places (m,) of the rows that the deals hold out, and their logits (m, L) by the regression on the others."""
    logits = []
    for kept, held in deals:
        weights, bias = _fit(scaled, setting, kept)
        logits.append(scaled.features(held) @ weights + bias)
    return np.concatenate([held for _, held in deals]), np.concatenate(logits)


def _choose(rows: _Rows) -> tuple[_Scaled, Setting, list[dict[str, Any]]]:
    """The setting whose rows held out have the lowest log-loss, calibrated; of nearly equal ones the first. With the
    rows scaled as it says, and a record of all that were tried."""
    deals, tried = rows.to_choose(), []

    def loss_of(scaled: _Scaled, setting: Setting) -> float:
        places, logits = _held_out(scaled, setting, deals)
        accepted = rows.accepted(places)
        right = right_probability(probabilities(logits, fit_temperature(logits, accepted)), accepted)
        loss = float(log_losses(right).mean())
        score = float((logits.argmax(1) == rows.targets[places]).mean())
        tried.append({**asdict(setting), "log_loss": loss, "score": score, "rows": len(places)})
        return loss

    def better(loss: float) -> bool:
        return loss < best - SIMPLER

    best, scaled, setting = np.inf, None, None
    for scales in WITH_VECTORS if VECTORS in rows.blocks else WITHOUT:
        other = _Scaled(rows, scales), Setting(scales, STRENGTHS[0])
        if better(loss := loss_of(*other)):
            best, (scaled, setting) = loss, other
    assert scaled is not None and setting is not None
    for strength in STRENGTHS[1:]:
        changed = replace(setting, strength=strength)
        if better(loss := loss_of(scaled, changed)):
            best, setting = loss, changed
    unnamed = replace(setting, names=False)
    return scaled, unnamed if better(loss_of(scaled, unnamed)) else setting, tried


def work_of(rows: int, labels: int) -> float:
    """Products of a fit of so many rows and labels, for its time beside that of another."""
    whole = rows + labels
    most = _most_landmarks(whole, labels)
    settings = len(WITH_VECTORS) + len(STRENGTHS)  # features, other strengths, without names
    if most >= whole:
        return labels * whole**2 * (settings * (CHOOSING - 1) + CALIBRATING)  # a fold's fit has the rows of the others
    return labels * most * (settings * most + 2 * whole)


def memory_of(texts: Sequence[str], labels: int) -> float:
    """About the bytes that a fit of these rows takes, without the process and the embedder. The terms are counted in
    some of the texts, as if the others had none in common with them."""
    rows = len(texts) + labels
    most, characters = _most_landmarks(rows, labels), sum(min(len(text), READ) for text in texts)
    features = 2 * 4 * rows * most  # of all rows, and their similarities
    searched = SEARCH_BYTES * most * labels
    some = texts[:: max(1, len(texts) // COUNTED)]
    terms = sum(len(known_terms(kind, some)) for kind in TERMS) * min(most, len(texts)) / len(some)
    weights = WEIGHT_BYTES * min(WEIGHTS, terms * labels)
    return features + searched + TERM_BYTES * terms + ENTRY_BYTES * characters + weights


def label_words(label: str) -> str:
    """A label's name in words: `AddToPlaylist` and `add_to_playlist` as `add to playlist`."""
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\-./]+", " ", label)).split()).lower()


def _most_landmarks(rows: int, labels: int) -> int:
    return min(LANDMARKS, NUMBERS // rows, max(LEAST_LANDMARKS, SEARCHED // labels))


def _spread_over(targets: np.ndarray, seed: int) -> np.ndarray:
    """Places of the rows, so that every beginning of them has the labels in equal numbers, as far as they have rows:
    each label's rows in random order, and of these the first of all labels, then the second."""
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    by_label = shuffled[np.argsort(targets[shuffled], kind="stable")]
    starts = np.r_[0, np.cumsum(np.bincount(targets))]
    rank = np.arange(len(targets)) - starts[targets[by_label]]
    return by_label[np.argsort(rank, kind="stable")]


def _dense(product: Any) -> np.ndarray:
    """A product of sparse or dense matrices as an array."""
    return product.toarray() if hasattr(product, "toarray") else np.asarray(product)
