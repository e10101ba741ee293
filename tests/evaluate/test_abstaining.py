"""`riyaz run --abstain`: which answers are withheld, that a stopped run goes on, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Finished
from tiny_comparison import closed_rows, command, write_rows

from riyaz.cli.abstaining import Abstaining, abstaining
from riyaz.cli.partial_answers import CHUNK, PartialAnswers
from riyaz.data.formats import load
from riyaz.errors import RiyazError
from riyaz.json_files import write_json
from riyaz.limits.limits_file import artifact_hash
from riyaz.predictor import Prediction, open_target
from riyaz.results import LIMITS, Abstention, Limits, Suite


def measured(folder: Path, thresholds: list[tuple[float, float]], temperature: float = 2.0) -> None:
    kept = Suite("truth", abstention=Abstention(temperature, 40, thresholds))
    served = open_target(folder).lm.served  # type: ignore[union-attr]
    write_json(folder / LIMITS, Limits("x", artifact_hash(folder), [kept], served=served))


@pytest.fixture
def artifact(quick: Finished, tmp_path: Path) -> Path:
    return shutil.copytree(quick.artifact("zero_shot"), tmp_path / "artifact")


def test_unsure_answers_are_blank(artifact: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(12, "now"))
    predictor = open_target(artifact)
    asked = [[{"role": "user", "content": row["text"]}] for row in closed_rows(12, "now")]
    answers = predictor.answers(asked)
    sure = sorted(2.718281828459045 ** ((each.log_probability or 0) / 2.0) for each in answers)
    threshold = (sure[5] + sure[6]) / 2
    measured(artifact, [(1.0, 0.0), (threshold, 0.04), (0.0, 0.5)])
    told = command("run", artifact, rows, "--out", tmp_path / "out.jsonl", "--abstain", "0.05")
    assert told.status == 0 and "a threshold set on 40 rows" in told.err
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(row["prediction"] == "" for row in written) == 6
    for row, answer in zip(written, answers):
        assert row["prediction"] == (answer.text if row["confidence"] >= threshold else "")


def test_a_threshold_holds_for_the_precision_that_it_was_set_at(artifact: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(4, "now"))
    measured(artifact, [(0.0, 0.0)])
    arguments = ("run", artifact, rows, "--abstain", "0.05", "--out", tmp_path / "out.jsonl")
    told = command(*arguments, "--precision", "int8")
    assert told.status == 2 and "--abstain: the threshold was set with weights as " in told.line
    assert "held as int8" in told.line and "same --precision" in told.line
    assert not (tmp_path / "out.jsonl").exists() and command(*arguments).status == 0


def test_a_confidence_is_kept_with_its_answer(tmp_path: Path) -> None:
    examples = load(write_rows(tmp_path / "rows.jsonl", closed_rows(CHUNK + 2, "now")), answers_required=False).examples
    with PartialAnswers(tmp_path / "out.jsonl", "a", examples) as kept:
        kept.add([Prediction("x", -0.5)] * CHUNK)
    with PartialAnswers(tmp_path / "out.jsonl", "a", examples) as kept:
        assert kept.answers[0].log_probability == -0.5


def test_the_probability_is_that_of_the_temperature() -> None:
    withheld = Abstaining(2.0, 0.5, 10)
    assert withheld.probability(Prediction("x", -2.0)) == pytest.approx(2.718281828459045**-1)
    assert withheld.text(Prediction("x", -2.0)) == "" and withheld.text(Prediction("x", -1.0)) == "x"


def test_what_cannot_be_withheld_is_said(artifact: Path, model_folder: Path) -> None:
    assert abstaining(str(artifact), None) is None
    with pytest.raises(RiyazError, match="the confidence of its answers was not measured"):
        abstaining(str(artifact), 0.05)
    with pytest.raises(RiyazError, match="was not measured"):
        abstaining(str(model_folder), 0.05)
    measured(artifact, [(0.9, 0.3), (0.1, 0.6)])
    with pytest.raises(RiyazError, match="with any threshold at least 30% of its answers are wrong"):
        abstaining(str(artifact), 0.05)
    with pytest.raises(RiyazError, match="2 is no share of wrong answers"):
        abstaining(str(artifact), 2)
    (artifact / "riyaz.json").write_text((artifact / "riyaz.json").read_text() + "\n")
    with pytest.raises(RiyazError, match="was not measured"):  # the artifact is another one now
        abstaining(str(artifact), 0.5)
