"""The artifact folder: whole or not at all, and every changed byte is named."""

import errno
import io
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from refusals import assert_refused

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel, TextPart, WeightsPart
from riyaz.data import Example
from riyaz.data.questions import Choice, Question
from riyaz.data.task import Task
from riyaz.json_files import write_json
from riyaz.results import COMPARE, ArmResult, Comparison

BASE = BaseModel("tiny", "models/tiny", "ab" * 32, 106_000)
TASK = Task("closed", ("blue", "red"), "accuracy", "Classify.", "2 distinct answers in 9 rows")
LORA = Artifact(
    method="lora",
    text=TextPart("Classify.", list_labels=True, examples="nearest", k=4),
    weights=WeightsPart("lora"),
    base=BASE,
    task=TASK,
    calibrated=True,
    max_new_tokens=9,
    config={"r": 16},
    data={"sha256": "cd" * 32},
    seeds={"seed": 0},
    versions={"riyaz": "0.1.0"},
    validation={"answer_log_loss": 0.5, "score": 0.75},
)
FILES: dict[str, Path | bytes] = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": b"weights",
    "examples.jsonl": b"",
}


def write_document(folder: Path, document: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / artifacts.NAME).write_text(json.dumps(document))


def document(**changes: object) -> dict:
    """A readable `riyaz.json` of an artifact without files, and the changes to it."""
    plain = Artifact(method="zero_shot", base=BASE, task=TASK)
    return {"format": artifacts.FORMAT, **asdict(plain), **changes}


def test_what_answers_imports_no_results() -> None:
    """`riyaz generate` would wait for all of them."""
    assert artifacts.COMPARED == COMPARE
    code = "import sys, riyaz.cli.opened, riyaz.engine.opening, riyaz.artifact; print('riyaz.results' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = artifacts.write(tmp_path / "a", LORA, FILES)
    assert set(written.checksums) == set(FILES)
    assert Artifact.read(tmp_path / "a") == written == replace(LORA, checksums=written.checksums)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_files_are_copied_and_an_older_artifact_is_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"x" * 3_000_000)
    artifacts.write(tmp_path / "a", LORA, FILES)
    artifacts.write(tmp_path / "a", replace(LORA, method="full", weights=WeightsPart("full")),
                    {"model.safetensors": source, "config.json": b"{}", "examples.jsonl": b""})  # fmt: skip
    assert Artifact.read(tmp_path / "a").method == "full"
    assert (tmp_path / "a/model.safetensors").read_bytes() == source.read_bytes()
    assert not (tmp_path / "a/adapter_config.json").exists()


def test_a_file_that_cannot_be_read_is_named_and_not_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> Iterable[bytes]:
        yield b"weights"
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(artifacts, "chunks", unreadable)
    with assert_refused("source.bin: cannot be read: Input/output error"):
        artifacts.write(tmp_path / "a", LORA, {"examples.jsonl": tmp_path / "source.bin"})
    assert list(tmp_path.iterdir()) == []


def test_a_read_that_fails_in_the_check_of_an_artifact_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.write(tmp_path / "a", LORA, FILES)

    class Unreadable(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        readinto = read  # type: ignore[assignment]

    monkeypatch.setattr("builtins.open", lambda *given, **options: Unreadable())
    with pytest.raises(OSError, match=r"Input/output error: '.*a/adapter_config.json'"):
        Artifact.read(tmp_path / "a")


def test_examples_survive(tmp_path: Path) -> None:
    examples = (
        Example(({"role": "user", "content": "où? \u2028 “x”"},), ("ja", "yes"), slice="rare", where="t.jsonl:3"),
        Example(({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), ("a",)),
        Example(({"role": "user", "content": "half a pair: \ud800"},), ("a",)),
    )
    path = tmp_path / "examples.jsonl"
    path.write_bytes(artifacts.examples_bytes(examples))
    assert artifacts.read_examples(path) == examples
    path.write_bytes(artifacts.examples_bytes(examples) + b'{"messages": [{}], "answers": []}\n')
    with assert_refused("examples.jsonl:4", "is not an example"):
        artifacts.read_examples(path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    artifacts.write(tmp_path / "a", LORA, FILES)
    path = tmp_path / "a" / name
    path.write_bytes(path.read_bytes() + b"!")
    with assert_refused(name, "the checksum does not match the file"):
        Artifact.read(tmp_path / "a")
    path.unlink()
    with assert_refused(name, "the file is missing"):
        Artifact.read(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "is of another format"),
        (document(format=99), "made by a newer riyaz (format 99, this one reads 1)"),
        (document(colour="red"), "unknown key 'colour'"),
        (document(text={"instruction": "x", "mood": 1}), "unknown key 'text.mood'"),
        ({"format": 1}, "method is missing"),
        (document(max_new_tokens="many"), "max_new_tokens is"),
        (document(max_new_tokens=True), "max_new_tokens is"),
        (document(task={**asdict(TASK), "labels": "blue"}), "task.labels is"),
        (document(base=None), "names no base model"),
        (document(base=["tiny"]), "base is not an object"),
        (document(weights={"kind": "magic"}), "weights.kind is 'magic'"),
        (document(weights={"kind": "lora"}), "lists no 'adapter_config.json'"),
        (document(text={"examples": "fixed"}), "lists no 'examples.jsonl'"),
        (document(text={"examples": "some"}), "text.examples is 'some'"),
        (document(checksums={"../secret": "00"}), "'../secret', which is not a bare file name"),
    ],
)
def test_a_lying_document_is_one_line(tmp_path: Path, content: object, says: str) -> None:
    write_document(tmp_path / "a", content)
    with assert_refused(artifacts.NAME, says):
        Artifact.read(tmp_path / "a")


def test_a_folder_without_a_document_or_with_a_broken_one(tmp_path: Path) -> None:
    with assert_refused(str(tmp_path), "holds no riyaz.json"):
        Artifact.read(tmp_path)
    (tmp_path / artifacts.NAME).write_text("{")
    with assert_refused("riyaz.json:1: is damaged"):
        Artifact.read(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with assert_refused(str(tmp_path), "exists and is not an artifact"):
        artifacts.write(tmp_path, LORA, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, before: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        artifacts.write(tmp_path / "a", LORA, FILES)
    store, calls = artifacts.write_synced, []

    def failing(path: Path, content: Iterable[bytes]) -> str:
        calls.append(path.name)
        if len(calls) == 3:
            raise error
        return store(path, content)

    monkeypatch.setattr(artifacts, "write_synced", failing)
    if isinstance(error, OSError):
        with assert_refused("the disk is full", str(tmp_path / "a")):
            artifacts.write(tmp_path / "a", replace(LORA, method="other"), FILES)
    else:
        with pytest.raises(KeyboardInterrupt):
            artifacts.write(tmp_path / "a", replace(LORA, method="other"), FILES)
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if before else [])
    if before:
        assert Artifact.read(tmp_path / "a").method == "lora"


def test_a_failed_rename_puts_the_old_artifact_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.write(tmp_path / "a", LORA, FILES)
    rename = artifacts.os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(artifacts.os, "replace", failing)
    with assert_refused("cannot be written", "Input/output error"):
        artifacts.write(tmp_path / "a", replace(LORA, method="other"), FILES)
    assert Artifact.read(tmp_path / "a").method == "lora"


def compared(folder: Path, pick: str | None = "lora") -> Path:
    """A comparison with an artifact of lora and full, and a failed arm; returns lora's artifact."""
    for method in ("lora", "full"):
        artifacts.write(folder / "arms" / method / "kept" / "artifact", LORA, FILES)
    (folder / "arms" / "few_shot" / "kept").mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", Comparison([ArmResult("lora", "ok")], pick, None, "certified", ""))
    return folder / "arms" / "lora" / "kept" / "artifact"


def test_a_comparison_stands_for_the_artifact_it_picked(tmp_path: Path) -> None:
    artifact = compared(tmp_path / "out")
    assert artifacts.resolve(tmp_path / "out") == artifact
    assert artifacts.resolve("smollm2-135m") == Path("smollm2-135m")
    compared(tmp_path / "out", pick=None)
    with assert_refused("picked no arm", f"name one of its arms: {tmp_path}/out/full, {tmp_path}/out/lora"):
        artifacts.resolve(tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["lora", "arms/lora", "arms/lora/artifact", "arms/lora/kept", "arms/lora/kept/artifact"]
)
def test_an_arm_of_a_comparison_is_named_by_folder_and_method(name: str, tmp_path: Path) -> None:
    artifact = compared(tmp_path / "out")
    assert artifacts.resolve(tmp_path / "out" / name) == artifact
    assert artifacts.count_trained(tmp_path / "out" / name, []) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lorra", "the comparison has no arm 'lorra'"),
        ("arms/lorra", "the comparison has no arm 'lorra'"),
        ("few_shot", "the arm few_shot left no artifact"),
        ("arms/few_shot/kept/artifact", "the arm few_shot left no artifact"),
    ],
)
def test_an_arm_that_is_not_there_is_answered_with_those_that_are(name: str, says: str, tmp_path: Path) -> None:
    compared(tmp_path / "out")
    with assert_refused(f"out/{name}: {says}", f"name one of its arms: {tmp_path}/out/full, {tmp_path}/out/lora"):
        artifacts.resolve(tmp_path / "out" / name)


@pytest.mark.parametrize("pick", ["../elsewhere", "/tmp", ""])
def test_the_pick_of_a_strangers_comparison_is_the_name_of_an_arm(pick: str, tmp_path: Path) -> None:
    compared(tmp_path / "out", pick=pick)
    artifacts.write(tmp_path / "out/elsewhere/kept/artifact", LORA, FILES)
    with assert_refused("which is none of its arms"):
        artifacts.resolve(tmp_path / "out")


def test_within_a_comparisons_folder_a_model_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert artifacts.resolve("lora") == Path("arms/lora/kept/artifact")
    assert artifacts.resolve("smollm2-135m") == Path("smollm2-135m") and artifacts.resolve("split") == Path("split")


@pytest.mark.parametrize("pick", ["../../victim", "/etc", "..", ""])
def test_a_pick_that_is_a_path_is_refused(pick: str, tmp_path: Path) -> None:
    write_json(tmp_path / "compare.json", Comparison([], pick, None, "certified", ""))
    (tmp_path / "arms").mkdir()
    with assert_refused(f"pick is {pick!r}, which is none of its arms"):
        artifacts.resolve(tmp_path)


@pytest.mark.parametrize("name", ["k", "passages", "span_words"])
def test_a_negative_count_of_a_stranger_is_refused(name: str, tmp_path: Path) -> None:
    artifacts.write(tmp_path / "a", Artifact("zero_shot", base=BaseModel("tiny", "tiny", "0" * 64, 1)), {})
    path = tmp_path / "a" / "riyaz.json"
    document = json.loads(path.read_text())
    document["text"][name] = -1
    path.write_text(json.dumps(document))
    with assert_refused(f"text.{name} is -1"):
        Artifact.read(tmp_path / "a")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["blue", "red", "blue"], "task.labels has one twice"), (["blue", ""], "task.labels has an empty one"),
        (["blue", " \n"], "task.labels has an empty one"), ([], "a closed task has nothing to choose from"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_chosen_are_refused_when_it_is_opened(
    labels: list[str], says: str, tmp_path: Path
) -> None:
    write_document(tmp_path / "a", document(task={**asdict(TASK), "labels": labels}))
    with assert_refused(says, "riyaz.json"):
        Artifact.read(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""), ({"choices": ["a", "a"]}, "task.questions.0.choices has one twice"),
        ({"choices": []}, "task.questions.0 has no choices"), ({"choices": ["a", ""]}, "choices has an empty one"),
        ({"choices": ["true", True]}, ""),
    ],
)  # fmt: skip
def test_choices_that_cannot_be_chosen_are_refused_when_it_is_opened(changes: dict, says: str, tmp_path: Path) -> None:
    choices = changes.pop("choices", ["a", "b"])
    question = Question("colour", "choice", "Which?", tuple(Choice(each) for each in choices))
    task = replace(TASK, kind="questions", labels=(), questions=(replace(question, **changes),))
    write_document(tmp_path / "a", document(task=asdict(task)))
    if not says:
        assert Artifact.read(tmp_path / "a").task == task
        return
    with assert_refused(says, "riyaz.json"):
        Artifact.read(tmp_path / "a")
