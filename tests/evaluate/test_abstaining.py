"""`riyaz run --abstain`: which answers are withheld, that a stopped run goes on, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Finished
from tiny_comparison import METHODS, closed_rows, command, write_rows

from riyaz.cli import partial_answers
from riyaz.cli.abstaining import ByConfidence, ByLimits, abstaining
from riyaz.cli.partial_answers import CHUNK, PartialAnswers, row_key
from riyaz.data.formats import load
from riyaz.errors import RiyazError
from riyaz.json_files import write_json
from riyaz.limits.limits_file import artifact_hash
from riyaz.predictor import Prediction, open_target
from riyaz.results import LIMITS, Abstention, Answer, Comparison, Evaluation, Limits, Suite


def measured(folder: Path, thresholds: list[tuple[float, float]], temperature: float = 2.0) -> None:
    kept = Suite("truth", abstention=Abstention(temperature, 40, thresholds))
    served = open_target(folder).lm.served  # type: ignore[union-attr]
    write_json(folder / LIMITS, Limits("x", artifact_hash(folder), [kept], served=served))


@pytest.fixture
def sure(quick: Finished, tmp_path: Path) -> Path:
    return shutil.copytree(quick.artifact("zero_shot"), tmp_path / "sure")


@pytest.fixture
def artifact(sure: Path) -> Path:
    """An artifact whose answers have no confidence, as that of free text, or of a version before there was one."""
    document = json.loads((sure / "riyaz.json").read_text())
    del document["temperature"]
    (sure / "riyaz.json").write_text(json.dumps(document))
    return sure


def answered(*arguments: object) -> tuple[list[dict], str]:
    """The rows that a run writes, and what it prints."""
    out = Path(str(arguments[-1]))
    told = command("run", *arguments[:-1], "--out", out)
    assert told.status == 0, told.err
    return [json.loads(line) for line in out.read_text().splitlines()], told.err


def test_every_answer_of_a_closed_set_has_a_confidence_and_a_runner_up(sure: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(6, "now"))
    written, _ = answered(sure, rows, tmp_path / "out.jsonl")
    answers = open_target(sure).answers([[{"role": "user", "content": row["text"]}] for row in closed_rows(6, "now")])
    assert [row["confidence"] for row in written] == pytest.approx([each.confidence for each in answers], abs=2e-4)
    assert [row["runner_up"] for row in written] == [each.runner_up for each in answers]
    assert command("run", sure, rows, "--out", tmp_path / "out.csv").status == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[0].endswith("prediction,confidence,runner_up")
    told = command(
        "run", sure, tmp_path / "out.jsonl", "--out", tmp_path / "again.jsonl", "--prediction-column", "second"
    )
    assert told.status == 0 and "second_runner_up" in (tmp_path / "again.jsonl").read_text()
    write_rows(tmp_path / "own.jsonl", [row | {"confidence": 1} for row in closed_rows(6, "now")])
    told = command("run", sure, tmp_path / "own.jsonl", "--out", tmp_path / "new.jsonl")
    assert told.status == 2 and "the rows have a column 'confidence' of their own" in told.line


def test_a_confidence_is_the_same_number_everywhere(quick: Finished, tmp_path: Path) -> None:
    for method in METHODS:
        kept = quick.out / "arms" / method / "kept"
        rows = Answer.read(kept / "predictions.jsonl")
        calibration = Evaluation.read(kept / "result.json").calibration
        arm = Comparison.read(quick.out / "compare.json").arm(method)
        assert arm is not None and arm.calibration == calibration is not None and calibration.rows == len(rows)
        assert calibration.log_loss == pytest.approx(-np.mean(np.log([row.right_probability or 1e-6 for row in rows])))
        asked = write_rows(tmp_path / f"{method}.jsonl", [{"text": row.prompt} for row in rows])
        written, _ = answered(quick.artifact(method), asked, tmp_path / f"{method}.out.jsonl")
        for row, line in zip(rows, written, strict=True):
            assert line["confidence"] == pytest.approx(row.confidence, abs=2e-3)  # another batch rounds otherwise
            assert row.confidence is not None and 0 < row.confidence <= 1 and row.brier is not None


def test_answers_are_withheld_by_their_confidence(sure: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(12, "now"))
    whole, _ = answered(sure, rows, tmp_path / "whole.jsonl")
    surest = sorted((row["confidence"] for row in whole), reverse=True)
    error = 1 - sum(surest[:5]) / 5
    written, told = answered(sure, rows, "--abstain", str(error + 1e-5), tmp_path / "out.jsonl")
    for row, before in zip(written, whole):
        assert row == before | ({} if row["confidence"] >= surest[4] else {"prediction": ""})
    given = [row for row in written if row["prediction"]]
    assert len(given) == sum(p >= surest[4] for p in surest)
    assert f"{12 - len(given)} of 12 answers are blank: by their confidence about {error:.1%} of the others" in told
    written, told = answered(sure, rows, "--abstain", "0", tmp_path / "none.jsonl")
    assert not any(row["prediction"] for row in written)
    assert f"the surest is right with probability {surest[0]:.2f}; give --abstain" in told


def test_answers_of_shards_are_withheld_as_those_of_the_whole(
    sure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_answers, "CHUNK", 4)
    rows, whole = write_rows(tmp_path / "rows.jsonl", closed_rows(12, "now")), tmp_path / "whole.csv"
    assert command("run", sure, rows, "--out", whole).status == 0
    for error in "0.2", "0":
        told = command("run", sure, rows, "--abstain", error, "--out", whole, "--force")
        for number in 1, 2:
            shard = ("--shard", f"{number}/2", "--out", tmp_path / "out.csv", "--force")
            assert command("run", sure, rows, "--abstain", error, *shard).status == 0
        files = [tmp_path / f"out.csv.{number}-of-2" for number in (1, 2)]
        joined = command("join", *files, "--out", tmp_path / "out.csv", "--force")
        assert (tmp_path / "out.csv").read_bytes() == whole.read_bytes() and joined.status == 0
        assert told.err.splitlines()[-1] == joined.err.splitlines()[-1] and "answers are blank" in joined.err


def test_a_threshold_withholds_the_answers_of_shards(artifact: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(6, "now"))
    measured(artifact, [(0.9, 0.3), (0.1, 0.6)])
    for more in (), ("--shard", "1/1"):
        told = command("run", artifact, rows, "--abstain", "0.3", "--out", tmp_path / "out.jsonl", *more)
        assert told.status == 0, told.err
    joined = command("join", tmp_path / "out.jsonl.1-of-1", "--out", tmp_path / "again.jsonl")
    assert "a threshold set on 40 rows" in joined.err
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


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
    assert told.status == 2 and "--abstain: the threshold was set with weights in " in told.line
    assert "here they are in int8" in told.line and "same --precision" in told.line
    assert not (tmp_path / "out.jsonl").exists() and command(*arguments).status == 0


def test_a_confidence_is_kept_with_its_answer(tmp_path: Path) -> None:
    examples = load(write_rows(tmp_path / "rows.jsonl", closed_rows(CHUNK + 2, "now")), answers_required=False).examples
    answer, keys = Prediction("x", -0.5, confidence=0.5, runner_up="y"), [row_key(example) for example in examples]
    with PartialAnswers(tmp_path / "out.jsonl", "a", keys) as kept:
        kept.add([answer] * CHUNK)
    with PartialAnswers(tmp_path / "out.jsonl", "a", keys) as kept:
        assert kept.count == CHUNK and not kept.has(CHUNK)
        kept.add([answer] * 2)
        assert [*kept.predictions()] == [answer] * (CHUNK + 2)


def test_an_answer_that_is_too_unsure_is_withheld() -> None:
    by_limits, predictions = ByLimits(2.0, 0.5, 10), [Prediction("x", confidence=p) for p in (0.4, 0.6)]
    assert [by_limits.withheld(each, by_limits.least(())).text for each in predictions] == ["", "x"]
    by_confidence = ByConfidence("x", 0.4)
    least = by_confidence.least(each.confidence for each in predictions)
    assert [by_confidence.withheld(each, least).text for each in predictions] == ["", "x"]
    with pytest.raises(RiyazError, match="the confidence of its answers was not measured"):
        by_confidence.with_confidence(None, [Prediction("x")], [])  # type: ignore[arg-type]


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
