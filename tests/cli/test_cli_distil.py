"""`riyaz distil`: rows or prompts, a teacher that is an artifact or an endpoint, a stop in between."""

import json
from pathlib import Path

import pytest
import tiny_comparison
from fake_endpoint import Handler, fake_endpoint
from tiny_comparison import Told, closed_rows, command, write_rows

from riyaz.artifact import Artifact
from riyaz.comparison import teach
from riyaz.config import MIN_ROWS
from riyaz.predictor import open_artifact
from riyaz.teacher import endpoint


def run(home: Path, *arguments: object) -> Told:
    """One command on a small machine, with workers inside this process."""
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        return command(*arguments)


@pytest.fixture(scope="module")
def student(asked: tuple) -> tuple[object, ...]:
    """The end of a command line."""
    return ("--into", *asked[1:])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, home: Path, asked: tuple) -> Path:
    """A linear classifier, whose labels stand in another order than those of the rows below."""
    folder = tmp_path_factory.mktemp("teacher")
    rows = write_rows(folder / "rows.jsonl", closed_rows(54, "earlier"))
    told = run(home, "adapt", "linear", rows, *asked, "--instruction", "Name the desk.", "--out", folder / "teacher")
    assert told.status == 0, told.err
    return folder / "teacher"


def prompts(path: Path, count: int = 60) -> Path:
    return write_rows(path, [{"text": row["text"]} for row in closed_rows(count, "tomorrow")])


@pytest.mark.parametrize(("given", "words"), [
    (("--rows", "rows.jsonl", "--prompts", "prompts.jsonl"), "both say what the teacher answers"),
    ((), "neither is there"),
])  # fmt: skip
def test_rows_or_prompts_are_given_and_not_both(
    given: tuple[str, ...], words: str, tmp_path: Path, home: Path, student: tuple, teacher: Path
) -> None:
    told = run(home, "distil", teacher, *student, *given, "--out", tmp_path / "out")
    assert told.status != 0 and words in told.line and "--rows and --prompts" in told.line
    assert list(tmp_path.iterdir()) == []


def test_prompts_are_answered_once_and_learned_also_after_a_stop(
    tmp_path: Path, home: Path, student: tuple, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = write_rows(tmp_path / "test.jsonl", closed_rows(18, "today"))
    ask = ("distil", teacher, *student, "--prompts", prompts(tmp_path / "prompts.jsonl"), "--test", test, "--out",
           tmp_path / "out")  # fmt: skip
    monkeypatch.setattr(teach, "CHUNK", 16)
    answered, asked = teach.answered, list[int]()

    def counted(*arguments: object) -> object:
        if len(asked) == 2:
            asked.append(0)
            raise KeyboardInterrupt
        made = answered(*arguments)  # type: ignore[arg-type]
        asked.append(len(made))
        return made

    monkeypatch.setattr("riyaz.comparison.teach.answered", counted)
    told = run(home, *ask)
    assert told.status == 130 and asked == [16, 16, 0]
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.answers.jsonl").exists(), "nothing half-written"
    told = run(home, *ask)
    assert told.status == 0, told.err
    assert asked[3:5] == [16, 12], "only the rest is asked"
    path = tmp_path / "out.answers.jsonl"
    assert f"the teacher's answers are in {path}" in " ".join(told.err.split())
    rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    assert len(rows) == 60 and {row[-1]["role"] for row in rows} == {"assistant"}
    predictor = open_artifact(teacher)
    answers = predictor.answers([row[:-1] for row in rows])
    assert [row[-1]["content"] for row in rows] == [answer.text for answer in answers]
    artifact = Artifact.read(tmp_path / "out")
    assert (artifact.method, artifact.weights.kind) == ("distil", "lora")
    assert (
        artifact.task is not None and artifact.task.kind == "closed" and artifact.text.instruction == "Name the desk."
    )
    known = told.document["teacher"]
    assert (known["name"], known["soft"], known["rows"], known["prompts"]) == (str(teacher), True, 18, 60)
    assert known["student"] == pytest.approx(told.document["score"]) and known["score"] > 0.9
    assert known["difference"] == pytest.approx(known["student"] - known["score"])


def test_a_place_that_is_taken_is_refused_before_the_teacher_is_asked(
    tmp_path: Path, home: Path, student: tuple, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    monkeypatch.setattr(teach, "answered", lambda *_: pytest.fail("asked"))
    told = run(home, "distil", teacher, *student, "--prompts", prompts(tmp_path / "prompts.jsonl"), "--out",
               tmp_path / "out")  # fmt: skip
    assert told.status != 0 and "already exists" in told.line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "prompts.jsonl"]


def test_too_few_prompts_are_refused_before_any_is_answered(
    tmp_path: Path, home: Path, student: tuple, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "answered", lambda *_: pytest.fail("asked"))
    path = prompts(tmp_path / "prompts.jsonl", 12)
    told = run(home, "distil", teacher, *student, "--prompts", path, "--out", tmp_path / "out")
    assert told.status != 0 and f"{path}: 12 different prompts" in told.line and f"at least {MIN_ROWS}" in told.line
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("mine", [
    '{"messages": [{"role": "user", "content": "mine"}, {"role": "assistant", "content": "written by hand"}]}\n',
    "my notes\n", '["a"]\n',
])  # fmt: skip
def test_a_file_of_somebody_else_is_not_overwritten(
    mine: str, tmp_path: Path, home: Path, student: tuple, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.answers.jsonl"
    path.write_text(mine)
    monkeypatch.setattr(teach, "answered", lambda *_: pytest.fail("asked"))
    told = run(home, "distil", teacher, *student, "--prompts", prompts(tmp_path / "prompts.jsonl"), "--out",
               tmp_path / "out")  # fmt: skip
    assert told.status != 0 and str(path) in told.line and "holds other rows" in told.line and "--out" in told.line
    assert path.read_text() == mine and not (tmp_path / "out").exists()


def test_rows_are_learned_as_the_teacher_answers_them(
    tmp_path: Path, home: Path, student: tuple, teacher: Path
) -> None:
    rows = write_rows(tmp_path / "data/train.jsonl", closed_rows(45, "please")).parent
    write_rows(rows / "test.jsonl", closed_rows(18, "today"))
    told = run(home, "distil", teacher, *student, "--rows", rows, "--out", tmp_path / "out")
    assert told.status == 0, told.err
    assert told.document["method"] == "distil" and told.document["teacher"]["prompts"] == 45
    assert not (tmp_path / "out.answers.jsonl").exists() and not (tmp_path / "out.work").exists()


def test_a_teacher_without_usable_answers_is_one_line(tmp_path: Path, student: tuple) -> None:
    def reply(handler: Handler) -> None:
        handler.answer("  ")

    with fake_endpoint(reply) as fake, pytest.MonkeyPatch.context() as patch:
        patch.delenv(endpoint.KEY, raising=False)
        told = run(tmp_path / "home", "distil", fake.address, *student, "--teacher-model", "m", "--prompts",
                   prompts(tmp_path / "prompts.jsonl"), "--out", tmp_path / "out")  # fmt: skip
        assert fake.calls, told.err
        sent = fake.calls[0].body["messages"]
    assert told.status != 0 and "every answer of the teacher is empty" in told.line and "(m)" in told.line
    assert [turn["role"] for turn in sent] == ["user"], "no instruction was given"
    assert not (tmp_path / "out.answers.jsonl").exists()
