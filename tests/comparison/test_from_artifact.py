"""`riyaz adapt --from`: what stays of the artifact's task, which rows are held out, what was forgotten, what is
refused, and a stopped command that goes on."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
from refusals import assert_refused
from tiny_comparison import Told, closed_rows, command, write_rows

import riyaz
from riyaz import artifact as artifacts
from riyaz import rehearsal
from riyaz.artifact import Artifact, trained_key, trained_keys
from riyaz.card import card
from riyaz.comparison import run
from riyaz.comparison.dividing import divider, without_learned
from riyaz.comparison.earlier_task import MOST_ROWS
from riyaz.comparison.from_artifact import read_start, reopened, start_file, task_for
from riyaz.config import AdaptConfig, CompareConfig, DataConfig
from riyaz.data import Dataset, Example
from riyaz.data.formats import DataFolder, load
from riyaz.data.questions import Choice, Question
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.events import Event, Note, Progress, quiet
from riyaz.methods.fitting.start import Start
from riyaz.predictor import open_target
from riyaz.results import Comparison
from riyaz.sources import open_source
from riyaz.target_scores import evaluate_target

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]
OPENING = [{"text": f"at what time do you open {i}", "label": "opening", "slice": "odd"} for i in range(12)]
NEW = [row for row in closed_rows(45, "now") if row["label"] != "refund"] + OPENING
ADAPTER = "adapter_model.safetensors"


@dataclass
class First:
    """An artifact of three labels, the rows that it was made from, and what every further command names."""

    folder: Path
    options: tuple[object, ...]

    @property
    def artifact(self) -> Path:
        return self.folder / "first"

    def adapt(self, method: str, rows: list[dict[str, str]], out: str, *more: object, name: str = "new.jsonl") -> Told:
        write_rows(self.folder / name, rows)
        return command("adapt", method, self.folder / name, *self.options, "--out", self.folder / out, *more)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Iterator[First]:
    folder = tmp_path_factory.mktemp("first")
    (folder / "general.txt").write_text(tiny_llama.CORPUS)
    write_rows(folder / "data/train.jsonl", closed_rows(45, "please"))
    write_rows(folder / "data/test.jsonl", closed_rows(18, "today"))
    made = First(folder, ("--budget", "3h", "--general", folder / "general.txt"))
    with pytest.MonkeyPatch.context() as patch:
        tiny_comparison.workers_inside(patch)
        patch.setattr(rehearsal, "TEXTS", 12)
        told = command("adapt", "lora", folder / "data", *made.options, "--model", model_folder, "--rank", 4,
                       "--out", made.artifact)  # fmt: skip
        assert told.status == 0, told.err
        yield made


@pytest.fixture(scope="module")
def second(first: First) -> Told:
    """What goes on from it with other rows: two of its labels, one new one, and four of its own rows."""
    told = first.adapt("lora", NEW + closed_rows(4, "please"), "second", "--from", first.artifact, "--earlier-test",
                       first.folder / "data/test.jsonl", "--json")  # fmt: skip
    assert told.status == 0, told.err
    return told


def keys(path: Path) -> set[str]:
    return {trained_key(row) for row in load(path).examples}


def test_labels_of_both_tasks_are_answered_and_notes_say_what_stays(first: First, second: Told) -> None:
    made = Artifact.read(first.folder / "second")
    assert made.task is not None and made.task.labels == ("billing", "delivery", "opening", "refund")
    assert (
        "labels of the artifact that no new row has, which stay but may be forgotten without rows: 1 (refund)"
        in second.err
    )
    assert "labels that are new to the artifact: 1 (opening)" in second.err
    assert "first is kept: 'Classify the text. Answer with one label.'" in second.err
    model = riyaz.open(first.folder / "second")
    assert model.answer("at what time do you open 3") == "opening"
    question = ({"role": "user", "content": "please return the payment"},)
    (answer,) = open_target(first.folder / "second").answers([question], ["here"])
    assert answer.probabilities is not None and len(answer.probabilities) == 4 and answer.probabilities.min() > 0
    told = first.adapt("lora", NEW + closed_rows(45, "please"), "mixed", "--from", first.artifact, "--steps", 24)
    assert told.status == 0, told.err
    answers = riyaz.open(first.folder / "mixed").answers([row["text"] for row in closed_rows(9, "please")])
    assert "refund" in answers and "stay: " not in told.err, "with rows of all labels"


def test_the_base_is_the_artifacts_and_so_is_the_shape(first: First, second: Told, model_folder: Path) -> None:
    made = Artifact.read(first.folder / "second")
    assert made.base is not None and made.base.sha256 == open_source(model_folder).sha256()
    assert (second.document["chosen"]["rank"], second.document["chosen"]["alpha"]) == (4, 8)
    assert all(check["ok"] for check in second.document["checks"].values())
    assert "artifact" in second.document["checks"]["step0_loss"]


def test_the_chain_is_recorded_and_the_card_names_it(first: First, second: Told) -> None:
    before, made = Artifact.read(first.artifact), Artifact.read(first.folder / "second")
    assert made.config["from"] == [{"name": str(first.artifact), "sha256": before.checksums[ADAPTER]}]
    start = read_start(first.folder / "second")
    assert [each["sha256"] for each in start.chain] == [made.checksums[ADAPTER], before.checksums[ADAPTER]]
    text = card(str(first.folder / "second"))
    assert f"SHA-256 of its adapter {before.checksums[ADAPTER]}" in text
    assert "On the task of the artifact that it went on from: accuracy" in text


def test_rows_of_both_are_known_as_trained_on(first: First, second: Told) -> None:
    assert "4 of 46 rows are among those that the artifact has learned" in second.err
    old, new = trained_keys(first.artifact), trained_keys(first.folder / "second")
    assert old == keys(first.folder / "data/train.jsonl") and new == old | keys(first.folder / "new.jsonl")


def test_what_was_forgotten_is_measured_on_rows_of_the_first_task(first: First, second: Told) -> None:
    earlier, test = second.document["earlier"], first.folder / "data/test.jsonl"
    for field, folder in (("before", first.artifact), ("after", first.folder / "second")):
        scored = evaluate_target(str(folder), test, DataConfig(), listen=quiet)
        assert earlier[field] == pytest.approx(scored.score), field
    assert (earlier["metric"], earlier["rows"], earlier["learned"]) == ("accuracy", 18, 0)
    assert earlier["low"] <= earlier["after"] - earlier["before"] <= earlier["high"]
    line = f"earlier task  accuracy {earlier['before']:.3f} before, {earlier['after']:.3f} after, on 18 rows ("
    assert line in second.err
    kept = Comparison.read(first.folder / "second/adapted.json").arms[-1].earlier
    assert kept is not None and kept.before == earlier["before"]


def test_without_such_rows_a_note_says_so_and_names_the_artifacts_own(first: First) -> None:
    told = first.adapt("lora", NEW, "third", "--from", first.artifact, "--steps", 4)
    assert told.status == 0, told.err
    note = "forgets of its own task is not measured: name test rows of it with --earlier-test, such as"
    assert f"{note} {first.folder / 'data/test.jsonl'}" in told.err and "earlier task  " not in told.out


def test_rows_of_the_earlier_task_are_read_before_anything_runs(first: First, tmp_path: Path) -> None:
    write_rows(tmp_path / "many.jsonl", closed_rows(130, "later") + closed_rows(45, "please"))
    write_rows(tmp_path / "other.jsonl", OPENING)
    notes: list[str] = []

    def listen(event: Event) -> None:
        notes.extend([event.text] if isinstance(event, Note) else [])

    from riyaz.comparison.earlier_task import earlier_task

    continuing = AdaptConfig(from_=first.artifact, earlier_test=tmp_path / "many.jsonl")
    rows = earlier_task(continuing, DataConfig(), CompareConfig(), listen).rows
    assert len(rows) == MOST_ROWS == 100
    known = sum(trained_key(row) in trained_keys(first.artifact) for row in rows)
    assert known and f"{known} of 100 rows of --earlier-test are among those" in notes[0]
    again = earlier_task(continuing, DataConfig(), CompareConfig(), listen).rows
    assert [row.where for row in again] == [row.where for row in rows]
    told = first.adapt("lora", NEW, "no", "--from", first.artifact, "--earlier-test", tmp_path / "other.jsonl")
    assert told.status == 2 and "no row has one of the labels of" in told.line and "other.jsonl:1" in told.line
    told = first.adapt("lora", NEW, "no", "--earlier-test", tmp_path / "other.jsonl")
    assert "--earlier-test: there is no earlier task without --from" in told.line
    told = first.adapt("lora", NEW, "no", "--from", first.artifact, "--earlier-test", tmp_path / "none.jsonl")
    assert "none.jsonl" in told.line and not (first.folder / "no.work").exists()


def test_the_library_takes_the_same_options(first: First) -> None:
    options: dict[str, Any] = {"general": first.folder / "general.txt", "budget": "3h", "steps": 4, "quiet": True}
    made = riyaz.adapt("lora", NEW, from_=first.artifact, earlier_test=first.folder / "data/test.jsonl",
                       out=first.folder / "by-name", **options)  # fmt: skip
    assert made.result.earlier is not None and made.result.earlier.rows == 18
    assert "earlier task" in repr(made)
    with assert_refused("is no artifact"):
        riyaz.adapt("lora", NEW, from_=first.folder, out=first.folder / "no", quiet=True)
    with assert_refused("earlier_test: there is no earlier task without from_"):
        riyaz.adapt("lora", NEW, earlier_test="x.jsonl", out=first.folder / "no", quiet=True)
    with assert_refused("compare has no option 'from_'"):
        riyaz.compare(NEW, from_=first.artifact)  # type: ignore[call-arg]


# refused


def test_what_cannot_be_gone_on_from_is_one_line(first: First, tmp_path: Path, model_folder: Path) -> None:
    folder = first.artifact
    for method, kind in (("few_shot", "none"), ("prompt_tuning", "soft_prompt"), ("full", "full")):
        shutil.copytree(folder, tmp_path / method)
        document = json.loads((tmp_path / method / artifacts.NAME).read_text())
        document["method"], document["weights"] = method, {**document["weights"], "kind": kind, "label_head": False}
        for name in ("model.safetensors", "config.json"):
            document["checksums"][name] = document["checksums"][ADAPTER]
            shutil.copy(folder / ADAPTER, tmp_path / method / name)
        (tmp_path / method / artifacts.NAME).write_text(json.dumps(document))
    other = tiny_llama.write_hf_folder(tmp_path / "other", seed=2)
    lines = [
        (("lora", tmp_path), f"{tmp_path}: is no artifact; give what riyaz adapt or riyaz compare made"),
        (("lora", tmp_path / "nowhere"), "nowhere: is no artifact"),
        (("lora", tmp_path / "few_shot"), "of few_shot, which has no LoRA to train further; name one of lora"),
        (("lora", tmp_path / "prompt_tuning"), "is an artifact of prompt_tuning, which has no LoRA to train further"),
        (("lora", tmp_path / "full"), "of full, which trains every weight; a whole model is a base of its own"),
        (("full", folder), "--from: full cannot go on from an artifact; leave it out, or run lora, "),
        (("prompt_tuning", folder), "--from: prompt_tuning cannot go on from an artifact"),
        (("ensemble", folder), "--from: encoder cannot go on from an artifact"),
        (("lora", folder, "--rank", 8), f"--rank: the LoRA of {folder} has the rank 4, not 8; leave it out, or "),
        (("lora", folder, "--alpha", 4), f"--alpha: the LoRA of {folder} has the alpha 8, not 4"),
        (("lora", folder, "--model", other), f"first: was trained on tiny ({open_source(model_folder).sha256()[:12]}), "
         f"and --model is other ({open_source(other).sha256()[:12]}); name the base that it was trained on"),
    ]  # fmt: skip
    for (method, target, *more), line in lines:
        told = first.adapt(method, NEW, "no", "--from", target, *more)
        assert told.status == 2 and line in told.line, (line, told.err[-400:])
        assert not (first.folder / "no").exists()
    told = command("compare", first.folder / "new.jsonl", "--from", folder)
    assert "error: unknown option: --from" in told.err


def test_an_artifact_that_changes_under_a_run_is_noticed(first: First, tmp_path: Path) -> None:
    shutil.copytree(first.artifact, tmp_path / "start")
    file = start_file(read_start(tmp_path / "start"))
    start = reopened(file)
    assert start is not None and start.folder == tmp_path / "start" and reopened(None) is None
    document = tmp_path / "start" / artifacts.NAME
    document.write_text(document.read_text().replace('"seed": 0', '"seed": 1'))
    with assert_refused("start: the artifact has changed since the training began"):
        reopened(file)


def test_the_same_rank_and_alpha_by_hand_are_no_others(first: First) -> None:
    told = first.adapt("lora", NEW, "same-shape", "--from", first.artifact, "--rank", 4, "--alpha", 8, "--steps", 4)
    assert told.status == 0, told.err


def test_a_part_of_another_artifact_is_refused(first: First, tmp_path: Path) -> None:
    shutil.copytree(first.artifact, tmp_path / "cut")
    adapter = (tmp_path / "cut" / ADAPTER).read_bytes()
    (tmp_path / "cut" / ADAPTER).write_bytes(adapter[:-4] + bytes(4))
    told = first.adapt("lora", NEW, "no", "--from", tmp_path / "cut")
    assert told.status == 2 and ADAPTER in told.line


# the task


def rows_of(*pairs: tuple[str, str], path: str = "new.jsonl") -> Dataset:
    examples = tuple(
        Example(({"role": "user", "content": text},), (answer,), where=f"{path}:{i}")
        for i, (text, answer) in enumerate(pairs, 1)
    )
    return Dataset(examples, "text,answer", Path(path), "", ("text", "answer"), answer_column="answer")


CHOSEN = rows_of(*((f"text {i}", ("billing", "opening")[i % 2]) for i in range(40)))
SENTENCES = rows_of(*((f"text {i}", f"a whole sentence of an answer that says {i}") for i in range(40)))


def starting(first: First, task: Task) -> Start:
    start = read_start(first.artifact)
    document = replace(start.document, task=task, text=replace(start.document.text, instruction=task.instruction))
    return replace(start, document=document)


def test_the_kind_and_the_instruction_stay_unless_others_are_given(first: First) -> None:
    start = starting(first, Task("short", (), "exact_match", "Say it.", "", schema='{"type": "object"}'))
    task, notes = task_for(start, CHOSEN, DataConfig())
    assert (task.kind, task.instruction, task.schema) == ("short", "Say it.", '{"type": "object"}')
    assert "is kept: 'Say it.'" in notes[0]
    task, notes = task_for(start, CHOSEN, DataConfig(instruction="Another."))
    assert task.instruction == "Another." and "is not that of" in notes[0] and "'Say it.'" in notes[0]
    assert task_for(start, SENTENCES, DataConfig(task="free"))[0].kind == "free"
    with assert_refused("are short answers, and those of these rows a closed set of labels; give rows of the same"):
        task_for(start, CHOSEN, DataConfig(task="closed"))
    with assert_refused("are a closed set of labels, and those of these rows free text"):
        task_for(read_start(first.artifact), SENTENCES, DataConfig())
    few = rows_of(*((f"text {i}", ("billing", "delivery")[i % 2]) for i in range(5)))
    assert task_for(read_start(first.artifact), few, DataConfig())[0].kind == "closed", "its own labels"


def test_questions_must_be_the_same(first: First) -> None:
    asked = Question("team", "choice", "Who?", (Choice("billing"), Choice("support")), "team")
    task = Task("questions", (), "decisions", "Who?", "", (asked,))
    start = starting(first, task)
    with assert_refused("are typed questions, and those of these rows a closed set of labels"):
        task_for(start, CHOSEN, DataConfig())
    answered = rows_of(*((f"text {i}", json.dumps({"team": ("billing", "support")[i % 2]})) for i in range(20)))
    for question, ok in ((asked, True), (replace(asked, choices=(*asked.choices, Choice("sales"))), False)):
        reading = replace(load(first.folder / "data/train.jsonl").reading, questions=(question,))  # type: ignore[type-var]
        data = replace(answered, reading=reading)
        if ok:
            assert task_for(start, data, DataConfig())[0].questions == (asked,)
        else:
            with assert_refused("--questions: the questions are not those of", "team", "ask the same ones"):
                task_for(start, data, DataConfig())


def test_prompts_with_passages_need_a_method_that_retrieves(first: First) -> None:
    from riyaz.comparison.from_artifact import expect_fitting

    start = read_start(first.artifact)
    reading = replace(start, document=replace(start.document, text=replace(start.document.text, passages=2)))
    source = open_source(start.base_name)
    with assert_refused("--from: the prompts of", "hold passages of documents, and those of lora do not; run rag_lora"):
        expect_fitting(reading, ("lora",), source, CompareConfig())
    assert expect_fitting(reading, ("rag_lora",), source, CompareConfig()).rank == 4


# the rows


def data_of(first: First, folder: Path, train: list[Any], test: list[Any] | None = None) -> DataFolder:
    write_rows(folder / "train.jsonl", train)
    tested = None if test is None else load(write_rows(folder / "test.jsonl", test))
    return DataFolder(load(folder / "train.jsonl"), tested)


def test_test_rows_that_the_artifact_has_learned_are_left_out_or_refused(first: First, tmp_path: Path) -> None:
    learned = trained_keys(first.artifact)
    data = data_of(first, tmp_path, NEW, closed_rows(2, "please") + closed_rows(60, "later"))
    left, notes = without_learned(data, learned, False)
    assert left.test is not None and len(left.test.examples) == 60
    assert notes == ["the artifact has learned 2 of 62 test rows: they are left out"]
    data = data_of(first, tmp_path, NEW, closed_rows(9, "please") + closed_rows(60, "later"))
    with pytest.raises(RiyazError) as caught:
        without_learned(data, learned, False)
    assert "has learned 9 of 69 test rows, such as test.jsonl:1; remove them, or pass --allow-leakage" in str(
        caught.value
    )
    assert caught.value.options == {"allow_leakage": True}
    left, notes = without_learned(data, learned, True)
    assert left.test is not None and not any(trained_key(row) in learned for row in left.test.examples)
    data = data_of(first, tmp_path, NEW, closed_rows(9, "please"))
    with assert_refused("has learned 9 of 9 test rows; give test rows that it has not learned"):
        without_learned(data, learned, True)
    told = first.adapt("lora", NEW, "no", "--from", first.artifact, "--test", tmp_path / "test.jsonl")
    assert told.status == 2 and "has learned 9 of 9 test rows" in told.line


@pytest.mark.parametrize("tested", [False, True])
@pytest.mark.parametrize("count", [60, 240])
def test_rows_that_it_has_learned_are_never_held_out(
    first: First, tmp_path: Path, model_folder: Path, tested: bool, count: int
) -> None:
    learned = trained_keys(first.artifact)
    data = data_of(
        first,
        tmp_path,
        closed_rows(45, "please") + closed_rows(count, "now"),
        closed_rows(30, "later") if tested else None,
    )
    task = read_start(first.artifact).task
    bases = {"tiny": open_source(model_folder)}
    config = CompareConfig(model=(str(model_folder),))
    parts, report = divider(data, task, bases, config, ("lora",), None, learned)(True, None)
    assert bool(parts.folds) == (not tested and count < 200)
    for part in (parts, *parts.folds):
        assert not any(trained_key(row) in learned for row in (*part.valid, *part.test))
        assert sum(trained_key(row) in learned for row in part.train) == 45
        places = [row.where for row in (*part.train, *part.valid, *part.test)]
        assert len(places) == len(set(places))
    assert report.rows["train"] == len(parts.train) and report.rows["file"] == 45 + count
    assert sum(each["train"] for each in report.labels.values()) == len(parts.train)
    few, _ = divider(data, task, bases, replace(config, limit_train=50), ("lora",), None, learned)(True, None)
    assert len(few.train) + len(few.valid) == 50
    plain, _ = divider(data, task, bases, config, ("lora",), None)(True, None)
    assert any(trained_key(row) in learned for row in (*plain.valid, *plain.tested)), "else nothing is shown"


def test_too_few_new_rows_need_a_test_file(first: First, tmp_path: Path, model_folder: Path) -> None:
    learned, task = trained_keys(first.artifact), read_start(first.artifact).task
    bases, config = {"tiny": open_source(model_folder)}, CompareConfig(model=(str(model_folder),))
    rows = closed_rows(45, "please") + closed_rows(5, "now")
    with assert_refused("train.jsonl: 5 of 50 rows are new to the artifact: too few to test it; give at least 20 new"):
        divider(data_of(first, tmp_path, rows), task, bases, config, ("lora",), None, learned)
    data = data_of(first, tmp_path, rows, closed_rows(30, "later"))
    parts, _ = divider(data, task, bases, config, ("lora",), None, learned)(True, None)
    assert len(parts.train) + len(parts.valid) == 50, "the same rows again, for longer"


# stopped


def test_a_stopped_command_ends_with_the_same_bits_and_another_artifact_is_another_run(
    first: First, tmp_path: Path
) -> None:
    write_rows(tmp_path / "train.jsonl", NEW + closed_rows(160, "later"))
    start = tmp_path / "start"
    shutil.copytree(first.artifact, start)

    def adapt(out: str, stop: int = 0) -> Path:
        def listen(event: Event) -> None:
            if stop and isinstance(event, Progress) and event.phase == "train" and event.done == stop:
                raise KeyboardInterrupt

        config = CompareConfig(model=(read_start(start).base_name,), budget="3h", general=first.folder / "general.txt",  # type: ignore[arg-type]
                               out=tmp_path / out)  # fmt: skip
        run.adapt("lora", tmp_path / "train.jsonl", DataConfig(), config, AdaptConfig(from_=start), listen=listen)
        return tmp_path / out

    whole = adapt("whole")
    with pytest.raises(KeyboardInterrupt):
        adapt("stopped", stop=11)
    moved = json.loads((start / artifacts.NAME).read_text())
    (start / artifacts.NAME).write_text(json.dumps({**moved, "seeds": {"seed": 9}}))
    with assert_refused("this folder holds another comparison (other artifact)"):
        adapt("stopped")
    (start / artifacts.NAME).write_text(json.dumps(moved))
    shutil.rmtree(start)
    shutil.copytree(first.artifact, start)
    again = adapt("stopped")
    for name in (ADAPTER, "adapter_config.json", "labels.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert (whole / ADAPTER).read_bytes() != (first.artifact / ADAPTER).read_bytes()
