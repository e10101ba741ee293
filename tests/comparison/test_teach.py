"""A comparison with a teacher: what the student learns, what the result says, and what a stop or a refusal leaves."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
from fake_endpoint import Handler, fake_endpoint
from planned import given, made
from refusals import assert_refused
from tiny_comparison import Told, closed_rows, command, free_rows, write_rows
from waiting import HANG

from riyaz.artifact import TRAINED, Artifact
from riyaz.comparison import teach
from riyaz.comparison.arm_seconds import Sizes, full_steps
from riyaz.comparison.chosen_methods import chosen_methods
from riyaz.comparison.folder import ComparisonFolder
from riyaz.config import CompareConfig, read_toml
from riyaz.data import Example
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.events import Note
from riyaz.methods import METHODS
from riyaz.metrics.paired import paired_test
from riyaz.sources import open_source
from riyaz.teacher import endpoint, outputs
from riyaz.teacher.model import open_teacher

STATUS = 418  # of a server that will not


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Iterator[None]:
    """No key, few attempts and short waits between them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(endpoint.KEY, raising=False)
        patch.setattr(endpoint, "TIMEOUT", HANG)
        patch.setattr(endpoint, "RETRIES", 1)
        patch.setattr(endpoint, "FIRST_WAIT", 0.01)
        yield


def run(home: Path, *arguments: object) -> Told:
    """One command on a small machine, with workers inside this process."""
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        return command(*arguments)


def prompts(path: Path, texts: list[str], column: str = "text") -> Path:
    """A file of rows without answers."""
    return write_rows(path, [{column: text} for text in texts])


def answers(out: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (out / "teacher/answers.jsonl").read_text().splitlines()
    ]
    return lines


# labels, from an artifact


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory, home: Path, asked: tuple) -> Path:
    """A teacher: a linear classifier."""
    folder = tmp_path_factory.mktemp("labelling")
    rows = write_rows(folder / "rows.jsonl", closed_rows(54, "earlier"))
    told = run(home, "adapt", "linear", rows, *asked, "--out", folder / "teacher")
    assert told.status == 0, told.err
    return folder / "teacher"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, home: Path, asked: tuple, labelling: Path) -> tuple[Path, Told]:
    """A comparison whose student learns from it, also rows without answers, of which two are test rows."""
    folder = tmp_path_factory.mktemp("labelled")
    write_rows(folder / "data/train.jsonl", closed_rows(45, "please"))
    test = closed_rows(18, "today")
    write_rows(folder / "data/test.jsonl", test)
    known = closed_rows(45, "please")[3]["text"]
    texts = [row["text"] for row in closed_rows(10, "tomorrow")]
    more = prompts(folder / "more.jsonl", [*texts, test[2]["text"], known, test[5]["text"], texts[0]])
    told = run(home, "compare", folder / "data", *asked, "--methods", "zero_shot,lora,distil", "--teacher", labelling,
               "--unlabelled", more, "--out", folder / "out")  # fmt: skip
    assert told.status == 0, told.err
    return folder, told


def arm(told: Told, name: str) -> dict[str, Any]:
    return next(arm for arm in told.document["arms"] if arm["method"] == name)


def test_the_result_says_from_whom_and_how_well_it_has_learned(labelled: tuple[Path, Told], labelling: Path) -> None:
    folder, told = labelled
    student = arm(told, "distil")
    known = student["teacher"]
    assert student["status"] == "ok" and "teacher" not in arm(told, "lora") and "teacher" not in arm(told, "zero_shot")
    assert known["name"] == str(labelling) and known["prompts"] == known["answered"] == 45 + 10
    assert known["soft"] is True and student["chosen"]["soft_targets"] is True and known["rows"] == 18
    own = [json.loads(line) for line in (folder / "out/arms/distil/kept/predictions.jsonl").read_text().splitlines()]
    mine = np.array([float(row["score"]) for row in own])
    assert known["student"] == pytest.approx(mine.mean()) == pytest.approx(student["score"])
    lesson = teach.read_lesson(ComparisonFolder(folder / "out"))
    tested = ComparisonFolder(folder / "out").rows("kept", "test")
    theirs = np.array([lesson.scores[outputs.prompt_key(row.messages)] for row in tested])
    assert known["score"] == pytest.approx(theirs.mean()) and theirs.mean() > 0.9
    test = paired_test(mine, theirs)
    assert known["difference"] == pytest.approx(test.difference) == pytest.approx(mine.mean() - theirs.mean())
    assert (known["low"], known["high"]) == pytest.approx((test.low, test.high))
    assert known["ms_per_answer"] > 0 and known["seconds"] > 0


def test_rows_without_answers_are_learned_but_for_test_prompts(labelled: tuple[Path, Told]) -> None:
    folder, told = labelled
    assert "more.jsonl: 2 prompts are test rows, which the teacher is not asked for training" in told.err
    rows = teach.unlabelled(ComparisonFolder(folder / "out"))
    assert [row.prompt for row in rows] == [row["text"] for row in closed_rows(10, "tomorrow")]
    assert len(answers(folder / "out")) == 55
    train = len(ComparisonFolder(folder / "out").rows("kept", "train"))
    assert arm(told, "distil")["chosen"]["taught_rows"] == train + 10
    artifact = folder / "out/arms/distil/kept/artifact"
    assert Artifact.read(artifact).method == "distil"
    trained = {name: set((folder / f"out/arms/{name}/kept/artifact/{TRAINED}").read_text().split())
               for name in ("lora", "distil")}  # fmt: skip
    assert trained["distil"] - trained["lora"] == {row.key[:16] for row in rows}


def test_another_file_of_prompts_is_another_comparison(
    labelled: tuple[Path, Told], home: Path, asked: tuple, labelling: Path
) -> None:
    folder, _ = labelled
    more = folder / "more.jsonl"
    text = more.read_text()
    more.write_text(text + '{"text": "one more"}\n')
    told = run(home, "compare", folder / "data", *asked, "--methods", "zero_shot,lora,distil", "--teacher", labelling,
               "--unlabelled", more, "--out", folder / "out")  # fmt: skip
    more.write_text(text)
    assert told.status != 0 and "data" in told.line and str(folder / "out") in told.line, told.err


def test_labels_are_learned_as_the_teacher_predicts_them(labelled: tuple[Path, Told]) -> None:
    folder, _ = labelled
    kept = outputs.read(folder / "out/teacher")
    assert {output.text for output in kept.values()} <= {"billing", "delivery", "refund"}
    p = np.exp([output.soft.log_p[0] for output in kept.values() if output.soft is not None])
    assert p.shape == (55, 3) and p.sum(1) == pytest.approx(np.ones(55), abs=1e-4) and p.max(1).min() > 0.34
    labels = ("billing", "delivery", "refund")
    assert [output.text for output in kept.values()] == [labels[place] for place in p.argmax(1)]


def test_another_comparison_with_the_teacher_asks_nothing_again(
    labelled: tuple[Path, Told], tmp_path: Path, home: Path, asked: tuple, labelling: Path, monkeypatch: Any
) -> None:
    folder, _ = labelled
    asked_again: list[int] = []
    monkeypatch.setattr(teach, "answered", lambda predictor, task, rows: asked_again.append(len(rows)))
    monkeypatch.setattr(teach, "_judged", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    told = run(home, "compare", folder / "data", *asked, "--methods", "distil", "--teacher", labelling, "--unlabelled",
               folder / "more.jsonl", "--out", tmp_path / "out")  # fmt: skip
    assert told.status == 130 and asked_again == [], "it was stopped behind the answers"


def test_a_teacher_that_has_learned_test_rows_is_noted(labelled: tuple[Path, Told], labelling: Path) -> None:
    folder, told = labelled
    assert "of the test rows: its score says little" not in told.err
    comparison, notes = ComparisonFolder(folder / "out"), list[Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teach, "count_trained", lambda target, rows: 3 if len(rows) == 18 else 0)
        patch.setattr(teach, "_with_soft", lambda *given: given[4])
        patch.setattr(teach.outputs, "write", lambda *_: None)
        patch.setattr(teach, "write_json", lambda *_: None)
        teach.teach(comparison, comparison.settings(), (), 60.0, notes.append)
    said = [note.text for note in notes if isinstance(note, Note)]
    assert "the teacher has learned 3 of the test rows: its score says little" in said


# free text, from a model


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher: a tiny model with the student's tokens."""
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("writing") / "teacher", seed=7)


def free_data(folder: Path, count: int = 40) -> Path:
    write_rows(folder / "data/train.jsonl", free_rows(count))
    test = [{**row, "instruction": f"{row['instruction']} today"} for row in free_rows(8)]
    write_rows(folder / "data/test.jsonl", test)
    return folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_texts_of_a_model_are_learned_with_what_it_predicted_if_it_has_the_same_tokens(
    same: bool, tmp_path: Path, home: Path, asked: tuple, writing: Path
) -> None:
    teacher = writing if same else tiny_llama.write_hf_folder(tmp_path / "other", seed=7, vocab=400)
    told = run(home, "compare", free_data(tmp_path), *asked, "--methods", "zero_shot,distil", "--max-new-tokens", "12",
               "--teacher", teacher, "--out", tmp_path / "out")  # fmt: skip
    assert told.status == 0, told.err
    assert arm(told, "distil")["status"] == "ok", arm(told, "distil")["reason"]
    known = arm(told, "distil")["teacher"]
    assert known["soft"] is same and arm(told, "distil")["chosen"]["soft_targets"] is same
    assert ("the teacher has other tokens than the student" in told.err) is not same
    assert (tmp_path / "out/teacher/soft.safetensors").exists() is same
    assert (known["name"], known["rows"]) == (str(teacher), 8) and known["score"] is not None
    assert known["difference"] == pytest.approx(known["student"] - known["score"])


def test_of_several_students_all_have_the_teachers_tokens_or_learn_its_texts(writing: Path, tmp_path: Path) -> None:
    predictor = open_teacher(str(writing), Task("free", (), "rouge_l", "Help.", "", max_new_tokens=5))
    rows = [Example(({"role": "user", "content": f"row {n}"},), (), where=f"x:{n}") for n in range(3)]
    keyed = {outputs.prompt_key(row.messages): row for row in rows}
    made = {key: outputs.Output("the order" if place else "") for place, key in enumerate(keyed)}
    other = open_source(tiny_llama.write_hf_folder(tmp_path / "other", seed=7, vocab=400)).tokenizer()
    same, notes = open_source(writing).tokenizer(), list[Any]()
    soft = teach._with_soft(predictor, predictor.task, [same, same], keyed, made, notes.append)  # type: ignore[arg-type]
    assert [each.soft is not None for each in soft.values() if each.text] == [True, True]
    assert not [note for note in notes if isinstance(note, Note)]
    for students in ([same, other], [other, same]):
        assert teach._with_soft(predictor, predictor.task, students, keyed, made, notes.append) == made  # type: ignore[arg-type]
        assert isinstance(notes.pop(), Note)


# refusals


@pytest.mark.parametrize(("methods", "teacher", "words"), [
    (("lora",), "T", "lora cannot take it"), (("lora", "linear"), "T", "lora, linear cannot take it"),
    (("distil",), None, "distil needs a teacher to learn from"), (("lora", "distil"), None, "distil needs a teacher"),
])  # fmt: skip
def test_a_teacher_and_methods_that_do_not_fit_are_refused(
    methods: tuple[str, ...], teacher: str | None, words: str
) -> None:
    with assert_refused(words, "--teacher"):
        chosen_methods(CompareConfig(methods=methods, teacher=teacher))


def test_distil_takes_part_where_there_is_a_teacher() -> None:
    assert "distil" not in chosen_methods(CompareConfig())
    assert "distil" in chosen_methods(CompareConfig(teacher="T"))
    assert chosen_methods(CompareConfig(teacher="T", methods=("lora", "distil"))) == ("lora", "distil")
    for name, value in (("teacher_model", "m"), ("unlabelled", Path("more.jsonl"))):
        with assert_refused(f"--{name.replace('_', '-')}", "has no effect without a teacher"):
            chosen_methods(CompareConfig(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ['teacher = "http://a.example/v1"', 'teacher_model = "m"'])
def test_a_riyaz_toml_names_no_teacher(line: str, tmp_path: Path) -> None:
    (tmp_path / "riyaz.toml").write_text(line)
    with assert_refused("riyaz.toml: teacher", "for the command line alone", "give --teacher"):
        read_toml(tmp_path / "riyaz.toml")


@pytest.mark.parametrize(("teacher", "words"), [
    ("no-such-teacher", "no-such-teacher"), ("STUDENT", "is the student itself"),
    ("http://me:hunter2@a.example/v1", "holds more than scheme"), ("http://a b", "is no address"),
    ("https://a.example/v1?key=hunter2", "holds more than scheme"), ("NOWHERE", "nothing listens there"),
    ("none/lora", "none/lora"),
])  # fmt: skip
def test_a_teacher_that_cannot_be_is_one_line_and_nothing_is_written(
    teacher: str, words: str, tmp_path: Path, home: Path, asked: tuple, model_folder: Path
) -> None:
    with fake_endpoint(lambda handler: None) as fake:
        nowhere = fake.address
    name = {"STUDENT": str(model_folder), "NOWHERE": nowhere}.get(teacher, teacher)
    told = run(home, "compare", free_data(tmp_path), *asked, "--methods", "distil", "--teacher", name, "--out",
               tmp_path / "out")  # fmt: skip
    assert told.status != 0 and words in told.line and "hunter2" not in told.out + told.err
    assert not (tmp_path / "out").exists()


def test_the_model_of_an_endpoint_needs_an_address(tmp_path: Path, home: Path, asked: tuple, writing: Path) -> None:
    told = run(home, "compare", free_data(tmp_path), *asked, "--methods", "distil", "--teacher", writing,
               "--teacher-model", "m", "--out", tmp_path / "out")  # fmt: skip
    assert told.status != 0 and "--teacher-model" in told.line and "names the model of an endpoint" in told.line


# an endpoint


def spoken(handler: Handler) -> str:
    return str(handler.body["messages"][-1]["content"])


def helpful(handler: Handler) -> None:
    handler.answer(f"thank you for {spoken(handler).rpartition(' ')[2]}")


def failing(after: int, failure: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """A server that answers so many requests, and then fails."""
    seen: list[str] = []

    def reply(handler: Handler) -> None:
        seen.append(spoken(handler))
        return helpful(handler) if len(seen) <= after else failure(handler)

    return reply


@pytest.mark.slow
@pytest.mark.parametrize(("failure", "words"), [
    (lambda handler: handler.document({"error": {"message": "no money left"}}, STATUS), "no money left"),
    (lambda handler: handler.reset(), "broke off the connection"),
    (lambda handler: handler.send(b"<html>", kind="text/html"), "no JSON object"),
])  # fmt: skip
def test_what_was_bought_before_an_endpoint_failed_is_not_asked_again(
    failure: Callable[[Handler], None], words: str, tmp_path: Path, asked: tuple
) -> None:
    home, data = tmp_path / "home", free_data(tmp_path)
    more = prompts(tmp_path / "more.jsonl", [f"please say more of {n}" for n in range(6)], "instruction")
    ask = ("compare", data, *asked, "--methods", "distil", "--unlabelled", more, "--teacher-model", "m",
           "--instruction", "Be brief.", "--out", tmp_path / "out")  # fmt: skip
    with fake_endpoint(failing(17, failure)) as fake:
        told = run(home, *ask, "--teacher", fake.address)
        assert told.status != 0 and words in told.line and fake.address in told.line, told.err
        assert not (tmp_path / "out").exists(), "nothing half-written"
        (kept,) = (home / "teacher").iterdir()
        bought = outputs.kept(kept)
        assert 17 - endpoint.AT_ONCE <= len(bought) <= 17
        assert f"{len(bought)} answers are kept: the same command asks for the others" in told.line
        before, fake.reply = len(fake.calls), helpful
        told = run(home, *ask, "--teacher", fake.address)
        assert told.status == 0, told.err
        again = [spoken(call) for call in fake.calls[before:] if call.body]  # none of a request that was cut off
    assert len(set(again)) == 46 - len(bought) and len(again) <= len(set(again)) + endpoint.AT_ONCE, "only the rest"
    assert f"{len(set(again))} requests, about " in told.err and f"{len(bought)} answers are known already" in told.err
    first = fake.calls[0].body
    assert first["messages"][0] == {"role": "system", "content": "Be brief."} and first["model"] == "m"
    student = arm(told, "distil")
    known = student["teacher"]
    assert (known["name"], known["prompts"], known["soft"]) == (f"{fake.address} (m)", 46, False)
    assert known.get("score") is None and student["chosen"]["taught_rows"] > 30
    assert all(line["text"].startswith("thank you for ") for line in answers(tmp_path / "out"))
    tested = {row["instruction"] for row in map(json.loads, (data / "test.jsonl").read_text().splitlines())}
    assert not tested & {spoken(call) for call in fake.calls if call.body}, "test rows are not sent"


def test_an_endpoint_that_stalls_is_one_line(tmp_path: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.3)
    over = threading.Event()
    with fake_endpoint(lambda handler: over.wait(HANG) and None) as fake:
        told = run(tmp_path / "home", "compare", free_data(tmp_path), *asked, "--methods", "distil", "--teacher",
                   fake.address, "--teacher-model", "m", "--out", tmp_path / "out")  # fmt: skip
        over.set()
    assert told.status != 0 and "did not answer within 0.3 s, 2 times" in told.line
    assert not (tmp_path / "out/teacher/teacher.json").exists() and not (tmp_path / "out/plan.json").exists()


def test_answers_that_are_no_labels_are_counted_and_too_many_are_refused(tmp_path: Path, asked: tuple) -> None:
    write_rows(tmp_path / "data/train.jsonl", closed_rows(45, "please"))
    write_rows(tmp_path / "data/test.jsonl", closed_rows(9, "today"))
    with fake_endpoint(lambda handler: handler.answer("I do not know.")) as fake:
        told = run(tmp_path / "home", "compare", tmp_path / "data", *asked, "--methods", "distil", "--teacher",
                   fake.address, "--teacher-model", "m", "--out", tmp_path / "out")  # fmt: skip
        sent = fake.calls[0].body["messages"]
    assert told.status != 0 and "0 of 45 answers are labels of the rows" in told.line
    assert all(label in sent[0]["content"] for label in ("billing", "delivery", "refund")), "the labels are listed"


# the plan


def test_steps_count_rows_without_answers_for_distil_alone() -> None:
    sizes = Sizes(train=240, valid=40, test=100)
    for name, more in (("lora", 0), ("distil", 80), ("full", 0)):
        plain, with_more = (given(name, sizes=each) for each in (sizes, replace(sizes, unlabelled=80)))
        recipe = plain.methods[name]
        assert recipe is not None
        assert full_steps(plain, name) == recipe.steps(240) and full_steps(with_more, name) == recipe.steps(240 + more)
        steps = [made(1e6, name, sizes=each).arm(name).recipe_steps for each in (sizes, replace(sizes, unlabelled=80))]
        assert steps == [recipe.steps(240), recipe.steps(240 + more)] and (steps[0] < steps[1]) == bool(more)


def test_a_file_of_prompts_may_have_answers_which_are_not_read(tmp_path: Path, model_folder: Path) -> None:
    rows = [{"text": f"row {n}", "label": "a"} for n in range(5)]
    path = write_rows(tmp_path / "more.jsonl", rows)
    row = Example(({"role": "user", "content": "row 1"},), ("a",), where="x:1")
    parts = Split(train=(row,), valid=(), test=(replace(row, messages=({"role": "user", "content": "row 3"},)),))
    task, bases = Task("closed", ("a",), "accuracy", "", ""), [open_source(str(model_folder))]
    found = teach.unlabelled_rows(path, None, parts, task, bases)
    assert [each.prompt for each in found.rows] == ["row 0", "row 2", "row 4"] and found.sha256
    assert found.notes[-1] == "more.jsonl: 1 prompts are test rows, which the teacher is not asked for training"
    assert teach.unlabelled_rows(None, None, parts, task, bases) == teach.Unlabelled()
    with assert_refused("none.jsonl"):
        teach.unlabelled_rows(tmp_path / "none.jsonl", None, parts, task, bases)
    long = write_rows(tmp_path / "long.jsonl", [rows[0], rows[2] | {"text": "long " * 4000}])
    found = teach.unlabelled_rows(long, None, parts, task, bases)
    assert [each.prompt for each in found.rows] == ["row 0"]
    assert found.notes[-1] == "1 prompts without answers do not fit the context, such as long.jsonl:2"


def test_only_distil_learns_from_a_teacher() -> None:
    assert [name for name in METHODS if METHODS[name].needs_teacher] == ["distil"]
