"""`riyaz limits`: the command, its document, its budget, questions with true and false answers, wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from conftest import Finished
from tiny_comparison import closed_rows, command, files, write_rows

from riyaz.config import LimitsConfig
from riyaz.data.tables import read_table
from riyaz.errors import RiyazError
from riyaz.events import Event, Note
from riyaz.limits import bias, pairs, truths
from riyaz.limits.ask import answer_nats, plain
from riyaz.limits.inputs import Inputs
from riyaz.limits.run import divided, measure_target
from riyaz.predictor import open_model
from riyaz.results import Limits

pytestmark = pytest.mark.usefixtures("one_core")
CROWS = [
    {"sent_more": f"the old man {i} is late", "sent_less": f"the young man {i} is late", "bias_type": "age"}
    for i in range(60)
]
TRUTH = {
    "question": "where is my order", "mc1": {"choices": ["in the city", "lost"], "answer": 0},
    "mc2": {"in the city": 1, "lost": 0, "on the way": 1},
}  # fmt: skip


def test_the_command_writes_what_it_prints(model_folder: Path, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "crows.jsonl", CROWS)
    told = command(
        "limits",
        model_folder,
        "--suite",
        "bias",
        "--pairs",
        pairs,
        "--budget",
        "5m",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert told.status == 0, told.err
    document = Limits.read(tmp_path / "out" / "limits.json")
    assert told.document["suites"][0]["parts"] and [suite.name for suite in document.suites] == ["bias"]
    assert [part.name for part in document.suites[0].parts] == ["riyaz's own pairs", "CrowS-Pairs"]
    assert document.sha256 and document.served and document.seconds and document.command.startswith("riyaz")
    kept = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    assert [each["event"] for each in kept] == ["begun", "phase", "estimate", "phase", "ended"]
    assert kept[0]["command"] == document.command and kept[-1]["status"] == "done"
    plain = command("limits", model_folder, "--suite", "bias", "--pairs", pairs, "--budget", "5m")
    assert "60 of 60 pairs (age 60)" in plain.out and "cannot see: " in plain.out
    assert "left out  people swapped in your rows" in plain.out


@pytest.mark.slow
def test_a_short_budget_is_said_before_and_in_the_part(model_folder: Path, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "crows.jsonl", CROWS * 600)  # tens of seconds on any machine
    events: list[Event] = []
    config = LimitsConfig(suite=("bias",), pairs=(str(pairs),), budget="1s")  # type: ignore[arg-type]
    document = measure_target(str(model_folder), config, listen=events.append)
    assert document.estimate_seconds is not None and document.estimate_seconds > 1
    assert any(isinstance(each, Note) and "the budget is too short for all items" in each.text for each in events)
    part = document.suites[0].parts[1]
    assert part.notes[0].startswith("The budget was too short for") and (part.figures[0].n or 0) < 36_000


def test_a_long_suite_leaves_the_others_their_time() -> None:
    shares = divided({"bias": 30.0, "cost": 5.0, "context": 1000.0}, 65.0)
    assert shares == {"bias": 1.0, "cost": 1.0, "context": pytest.approx(0.03)}
    assert divided({"bias": 40.0, "context": 40.0}, 40.0) == {"bias": 0.5, "context": 0.5}
    assert divided({"truth": 0.0}, 1.0) == {"truth": 1.0}


def test_an_artifact_keeps_its_limits_and_suites_join(quick: Finished, tmp_path: Path) -> None:
    import shutil

    artifact = shutil.copytree(quick.artifact("nearest"), tmp_path / "artifact")
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(24, "now"))
    told = command("limits", artifact, "--suite", "truth", "--json")
    assert told.status == 0 and told.document["suites"][0]["left_out"][0].startswith("no language model answers")
    told = command("limits", artifact, "--suite", "bias", "--rows", rows)
    assert told.status == 0 and "pairs of sentences: no language model answers" in told.out
    kept = Limits.read(artifact / "limits.json")
    assert [suite.name for suite in kept.suites] == ["bias", "truth"]
    assert command("evaluate", artifact, "--test", rows).status == 0  # the file beside it does not spoil the artifact


def test_an_arm_of_a_comparison_is_measured_on_its_own_rows(quick: Finished, tmp_path: Path) -> None:
    told = command("limits", quick.out / "zero_shot", "--suite", "bias", "--budget", "5s", "--out", tmp_path, "--json")
    assert told.status == 0, told.err
    names = [part["name"] for part in told.document["suites"][0]["parts"]]
    written = {"limits.json", "limits.md", "limits.html", "events.jsonl", ".lock"}
    assert "your rows, introduced by name" in names and files(tmp_path) == written


def test_multiple_choice_is_as_truthfulqa_defines_it(model_folder: Path, tmp_path: Path) -> None:
    given = truths.read(read_table(write_rows(tmp_path / "t.jsonl", [TRUTH])))
    (item,) = given.items
    assert item.answers == ("in the city", "lost", "on the way") and item.true == (True, False, True)
    model = open_model(model_folder)
    (nats,) = answer_nats(plain(model), [[{"role": "user", "content": item.question}]], [item.answers])
    first, second = truths.measure(model, given, 1.0).figures
    assert first.value == float(nats[0] > nats[1]) and first.even == 0.5
    p = np.exp(nats)
    assert second.value == pytest.approx((p[0] + p[2]) / p.sum(), abs=0.02) and second.even == pytest.approx(2 / 3)


def test_the_first_measure_compares_its_own_answers_alone() -> None:
    item = truths.Claims("q", ("yes", "no", "surely"), (True, False, True), 2)
    first, second = truths.multiple_choice([item], [np.array([-1.0, -2.0, 0.0])])
    p = np.exp([-1.0, -2.0, 0.0])
    assert (first.value, first.even) == (1.0, 0.5) and second.value == pytest.approx((p[0] + p[2]) / p.sum())


def test_the_form_of_its_authors_is_read_too(tmp_path: Path) -> None:
    """mc_task.json: a list of objects whose targets are {text: 1 or 0}."""
    path = tmp_path / "mc_task.json"
    row = {"question": "q", "mc1_targets": {"no": 0, "yes": 1}, "mc2_targets": {"yes": 1, "no": 0, "surely": 1}}
    path.write_text(json.dumps([row, row]))
    item = truths.read(read_table(path)).items[1]
    assert (item.answers, item.true, item.single) == (("yes", "no", "surely"), (True, False, True), 2)


def test_what_is_longer_than_the_context_is_left_out_and_said(tmp_path: Path) -> None:
    small = open_model(tiny_llama.write_hf_folder(tmp_path / "small", context=64))
    long = {**TRUTH, "question": "where is my order " * 40}
    given = truths.read(read_table(write_rows(tmp_path / "t.jsonl", [TRUTH, long])))
    part = truths.measure(small, given, 1.0)
    assert part.figures[0].n == 1 and part.notes == [
        "Left out, as longer than the context of 64 tokens: 1 of the questions."
    ]
    sentence = {**CROWS[0], "sent_more": "the old man is late " * 40}
    inputs = Inputs(small, LimitsConfig(), [pairs.read(write_rows(tmp_path / "c.jsonl", [*CROWS, sentence]))])
    part = bias.measure(inputs).parts[1]
    assert part.figures[0].n == 60 and part.notes == [
        "Left out, as longer than the context of 64 tokens: 1 of the pairs."
    ]
    with pytest.raises(RiyazError, match=r"t\.jsonl: nothing in it fits the context of 64 tokens"):
        truths.measure(small, truths.read(read_table(write_rows(tmp_path / "t.jsonl", [long]))), 1.0)


def test_hugging_face_columns_and_halueval(model_folder: Path, tmp_path: Path) -> None:
    targets = {"choices": ["yes", "no"], "labels": [0, 1]}
    row = {"question": "q", "mc1_targets": targets, "mc2_targets": targets}
    assert truths.read(read_table(write_rows(tmp_path / "a.jsonl", [row]))).items[0].answers == ("no", "yes")
    halu = {"knowledge": "k", "question": "q", "right_answer": "yes", "hallucinated_answer": "no, it does not"}
    given = truths.read(read_table(write_rows(tmp_path / "b.jsonl", [halu])))
    assert (given.name, given.items[0].question) == ("HaluEval", "k\n\nq")
    assert truths.measure(open_model(model_folder), given, 1.0).figures[0].even == 0.5


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**TRUTH, "mc1": {"choices": ["a"], "answer": 0}, "mc2": {"a": 1}}, "all are true, or all are false"),
        ({**TRUTH, "mc2": None}, "no true answer beside a false one"),
        ({"right_answer": "a", "hallucinated_answer": "", "question": "q"}, "a question or an answer is empty"),
        ({"text": "a"}, "has no fields of TruthfulQA or HaluEval"),
    ],
)
def test_wrong_questions_are_refused(tmp_path: Path, row: dict, says: str) -> None:
    with pytest.raises(RiyazError, match=says):
        truths.read(read_table(write_rows(tmp_path / "t.jsonl", [row])))


def test_wrong_input_is_one_line(model_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(12, "now"))
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "a.md").write_text("# A\n\nThe card desk is here.\n")
    empty = write_rows(tmp_path / "crows.jsonl", [{**CROWS[0], "sent_less": ""}])
    wrong = [
        (("--suite", "shoes"), "--suite: unknown suite 'shoes'; choose from bias, truth, context, cost, fragile"),
        (("--budget", "0s"), "'0s' is zero"),
        (("--rows", tmp_path / "none.jsonl"), "none.jsonl"),
        (("--rows", write_rows(tmp_path / "one.jsonl", closed_rows(1, ""))), "1 rows are too few"),
        (("--rows", rows, "--documents", pages), "no row names a document"),
        (("--documents", pages), "there are no rows that name documents"),
        (("--rows", write_rows(tmp_path / "d.jsonl", [{**row, "doc_id": "z"} for row in closed_rows(12, "now")]),
          "--documents", pages), "the rows name 'z', which is the id of no document"),
        (("--pairs", empty), "crows.jsonl:1: half of the pair is missing"),
        (("--pairs", tmp_path / "none.json"), "none.json"),
        (("--out", rows), "is a file"),
    ]  # fmt: skip
    for arguments, says in wrong:
        told = command("limits", model_folder, "--suite", "truth", *arguments)
        assert told.status == 2 and says in told.line, (arguments, told.err)
