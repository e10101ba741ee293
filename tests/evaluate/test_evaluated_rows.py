"""Evaluation: which rows merged precisions are compared on, and whose rounding the check of a reopened model allows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_context import TASK, examples

from riyaz import artifact as artifacts
from riyaz import evaluate
from riyaz.artifact import Artifact, BaseModel, WeightsPart
from riyaz.config import Precision
from riyaz.data import Example
from riyaz.drift import BaseFacts
from riyaz.engine.opening import ENGINE
from riyaz.events import quiet
from riyaz.models import name_precision
from riyaz.precisions import Measured
from riyaz.predictor import open_artifact
from riyaz.results import Evaluation
from riyaz.scoring import answer_log_loss
from riyaz.sources import open_source

SOME = (np.full((1, 512), -np.log(512.0)),)  # the base's distribution over its first answer
VALID, TEST = examples(9, "today"), examples(6, "please")


@pytest.fixture(scope="module")
def described(model_folder: Path) -> Artifact:
    source = open_source(model_folder)
    base = BaseModel(source.name, str(model_folder), source.sha256(), 1, source.tokenizer().template)
    return Artifact("full", base=base, task=TASK)


def evaluated(folder: Path, out: Path, base: BaseFacts | None = None, precision: Precision = "auto") -> Evaluation:
    out.mkdir()
    return evaluate.evaluate_artifact(
        folder, TEST, VALID, out, base=base, kl_rows=VALID[:2], latency_rows=2, retrieval_rows=0, general=None,
        precision=precision, listen=quiet,
    )  # fmt: skip


def test_merged_precisions_are_compared_on_validation_rows(
    described: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[Sequence[Example], Sequence[Example]]] = []
    measure = evaluate.measure

    def recorded(*arguments: Any) -> Measured:
        judged.append(arguments[3:5])
        return measure(*arguments)

    monkeypatch.setattr(evaluate, "measure", recorded)
    monkeypatch.setattr(evaluate, "_can_merge", lambda artifact, folder: True)
    artifacts.write(tmp_path / "made", described, {})
    result = evaluated(tmp_path / "made", tmp_path / "out", BaseFacts(4.0, SOME))
    assert result.merged is not None and len(judged) == 3
    assert all(rows == VALID and timed == VALID[:2] for rows, timed in judged)


@pytest.mark.parametrize(("precision", "held"), [("auto", True), ("fp32", False)])
def test_a_reopened_model_may_round_as_the_precision_that_was_chosen(
    described: Artifact, model_folder: Path, tmp_path: Path, precision: Precision, held: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "named").mkdir()
    for path in model_folder.iterdir():
        (tmp_path / "named" / path.name).write_bytes(path.read_bytes())
    name_precision(tmp_path / "named", "int4")
    files: dict[str, Path | bytes] = {path.name: path for path in (tmp_path / "named").iterdir()}
    full = replace(described, weights=WeightsPart("full"))
    artifacts.write(tmp_path / "made", full, files)
    predictor = open_artifact(tmp_path / "made", precision=precision)
    assert predictor.has_model
    loss = answer_log_loss(predictor, VALID)
    further = replace(full, validation={"answer_log_loss": loss + 0.2 * loss})
    artifacts.write(tmp_path / "made", further, files)
    assert evaluated(tmp_path / "made", tmp_path / "out", precision=precision).checks["reopened"]["ok"] == held
    monkeypatch.setenv(ENGINE, "torch")  # which holds no weights in 4 bits
    assert not evaluated(tmp_path / "made", tmp_path / "torch", precision=precision).checks["reopened"]["ok"]
