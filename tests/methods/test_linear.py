"""The method `linear`: what it writes, what it says without an embedder, and its estimate."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from fit_context import TASK, examples, fit_context
from tiny_embedder import BagEmbedder

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact
from riyaz.classifiers import fitting
from riyaz.data import Example
from riyaz.engine import opening
from riyaz.events import Event, Note
from riyaz.methods import METHODS, linear
from riyaz.predictor import open_artifact


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> BagEmbedder:
    """An embedder in place of minilm."""
    embedder = BagEmbedder("minilm")
    monkeypatch.setattr(linear, "pulled_embedder", lambda: embedder)
    monkeypatch.setattr(opening, "open_embedder", lambda name: embedder)
    return embedder


def test_the_artifact_answers_as_the_classifier_that_was_fitted(
    model_folder: Path, tmp_path: Path, pulled: BagEmbedder
) -> None:
    context = fit_context(model_folder, tmp_path)
    fitted = METHODS["linear"].fit(context)
    artifacts.write(tmp_path / "made", Artifact("linear", fitted.text, fitted.weights, task=TASK), fitted.files)
    predictor = open_artifact(tmp_path / "made")
    rows = examples(9, "tomorrow")
    predictions = predictor.answers([row.messages for row in rows])
    assert [each.text for each in predictions] == [row.answer for row in rows]
    assert all(each.confidence and 1 / 3 < each.confidence < 1 for each in predictions)
    assert fitted.valid_score is not None and fitted.valid_score > 0.8
    assert fitted.chosen["held_out_rows"] == 24 + 9, "validation rows are rows like the others"
    assert fitted.trainable_params == sum(
        np.prod(shape) for shape in _shapes(tmp_path / "made") if (shape != () and len(shape) > 1) or shape == (3,)
    )


def _shapes(folder: Path) -> list[tuple[int, ...]]:
    from riyaz.sources import safetensors

    return [info.shape for info in safetensors.read(folder / artifacts.CLASSIFIER_WEIGHTS).tensors.values()]


def test_without_the_embedder_a_note_says_what_that_costs_once(
    model_folder: Path, tmp_path: Path, own_store: Path
) -> None:
    events: list[Event] = []
    context = fit_context(model_folder, tmp_path, listen=events.append)
    METHODS["linear"].time(context)  # type: ignore[misc]
    fitted = METHODS["linear"].fit(context)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == [linear.WITHOUT] and "riyaz pull minilm" in notes[0]
    assert "vectors" not in fitted.chosen["scales"] and fitted.valid_score


def test_the_validation_score_is_that_of_groups_that_were_not_seen(
    model_folder: Path, tmp_path: Path, own_store: Path
) -> None:
    """Every group has a word of its own and a label that is drawn: only its own rows know its answer."""
    drawn = np.random.default_rng(2).choice(TASK.labels, 24)
    rows = tuple(
        Example(({"role": "user", "content": f"customer{i // 5} word{i % 7}"},), (drawn[i // 5],), group=f"g{i // 5}")
        for i in range(120)
    )
    alone = tuple(replace(row, group=None) for row in rows)
    scores = [
        METHODS["linear"].fit(fit_context(model_folder, tmp_path, train=each[:90], valid=each[90:])).valid_score
        for each in (rows, alone)
    ]
    assert scores[0] is not None and scores[1] is not None and scores[0] < 0.6 < 0.9 < scores[1]


class Products:
    """A clock that goes on with the products of the regressions alone, a billion a second."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, searches = 0.0, list[Any]()
        minimize, fit_regression = scipy.optimize.minimize, fitting.fit_regression

        def fitted(features: np.ndarray, targets: np.ndarray, labels: int, strength: float) -> Any:
            found = fit_regression(features, targets, labels, strength)
            self.now += searches.pop().nfev * features.size * labels / 1e9
            return found

        def minimized(*given: Any, **known: Any) -> Any:
            searches.append(minimize(*given, **known))
            return searches[-1]

        patch.setattr(scipy.optimize, "minimize", minimized)
        patch.setattr(fitting, "fit_regression", fitted)
        patch.setattr(linear, "time", self)

    def perf_counter(self) -> float:
        return self.now


def test_the_estimate_is_that_of_a_fit(
    model_folder: Path, tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more rows than are timed; their searches have other lengths, so within a factor."""
    clock = Products(monkeypatch)
    train = examples(linear.SAMPLE * 2, "please")
    context = fit_context(model_folder, tmp_path, train=train)
    estimated = linear.measure_time(context).fit
    began = clock.now
    METHODS["linear"].fit(context)
    assert 1 / 3 < estimated / (clock.now - began) < 3 and 3 * began < estimated, "a sample is timed"
