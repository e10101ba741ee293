"""Hallucination: confidence and abstention, false premises, passages, agreement; and the same on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_comparison import CLOSED, closed_rows, command, short_rows, write_rows

from riyaz.artifact import TextPart
from riyaz.config import LimitsConfig
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.limits import abstain, consistency, passages, premises, templates, truth
from riyaz.limits.ask import answer_nats, answers_with_nats, plain
from riyaz.limits.inputs import Inputs, Rows
from riyaz.limits.own_rows import own_rows
from riyaz.metrics import calibration, selective
from riyaz.predictor import CopyPredictor, ModelPredictor, open_model, predictor_for
from riyaz.results import Limits
from riyaz.retrieval.documents import Document

CLOSED_TASK = Task("closed", tuple(sorted(CLOSED)), "accuracy", "Classify the text.", "")
SHORT = Task("short", (), "exact_match", "Answer the question in a few words.", "")


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ModelPredictor:
    return open_model(model_folder)


def told(model: ModelPredictor, task: Task) -> ModelPredictor:
    return predictor_for(replace(model, text=TextPart(task.instruction), task=task), max_new_tokens=8)


def examples(rows: list[dict[str, str]], prompt: str, answer: str) -> tuple[Example, ...]:
    return tuple(
        Example(({"role": "user", "content": row[prompt]},), (row[answer],), where=f"r:{i}", doc_ids=(f"d{i}",))
        for i, row in enumerate(rows)
    )


def test_risk_by_coverage_counts_the_surest_first() -> None:
    confidence, wrong = np.array([0.9, 0.1, 0.5, 0.5]), np.array([0, 1, 1, 0])
    assert selective.risk_coverage(confidence, wrong) == pytest.approx([0, 0.25, 1 / 3, 0.5])
    assert selective.aurc(confidence, wrong) == pytest.approx(np.mean([0, 0.25, 1 / 3, 0.5]))
    assert selective.aurc(np.ones(4), wrong) == pytest.approx(wrong.mean())
    best, worst = selective.aurc(1.0 - wrong, wrong), selective.aurc(wrong.astype(float), wrong)
    assert best < selective.aurc(np.ones(4), wrong) < worst


def test_the_temperature_gives_the_share_that_is_right_back() -> None:
    generator = np.random.default_rng(0)
    p = generator.uniform(0.05, 0.95, 4000)
    right = generator.uniform(size=4000) < p
    assert selective.fit_temperature(3 * np.log(p), right) == pytest.approx(3, rel=0.08)  # too unsure by a factor
    nats = 3 * np.log(p)
    before = calibration.expected_calibration_error(selective.probability(nats, 1), right)
    after = calibration.expected_calibration_error(selective.probability(nats, 3), right)
    assert after < 0.05 < before


def test_a_threshold_is_the_lowest_with_few_enough_errors() -> None:
    p, wrong = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0])
    pairs = selective.thresholds(p, wrong)
    assert pairs == [(0.9, 0.0), (0.8, 0.0), (0.7, pytest.approx(1 / 3)), (0.6, 0.25)]
    assert [selective.threshold_for(pairs, error) for error in (0.0, 0.25, 0.5)] == [0.8, 0.6, 0.6]
    assert selective.threshold_for([(0.9, 1.0)], 0.05) is None
    assert len(selective.thresholds(np.linspace(0, 1, 1000), np.zeros(1000))) == 200


def test_a_written_answer_is_as_sure_as_its_tokens(model: ModelPredictor) -> None:
    free = told(model, SHORT)
    rows = examples(short_rows(2), "question", "answer")
    texts, nats = answers_with_nats(free, [row.messages for row in rows])
    assert texts == [free.answer(row.messages) for row in rows] and (nats < 0).all()
    closed = told(model, CLOSED_TASK)
    texts, nats = answers_with_nats(closed, [row.messages for row in rows])
    assert nats.tolist() == [each.log_probability for each in closed.answers([row.messages for row in rows])]
    sure = replace(closed, temperature=2.0)  # type: ignore[type-var]
    texts, nats = answers_with_nats(sure, [row.messages for row in rows])
    assert np.exp(nats) == pytest.approx([each.confidence for each in sure.answers([row.messages for row in rows])])


def test_abstention_is_calibrated_on_other_rows(model: ModelPredictor) -> None:
    rows = examples(closed_rows(60, "now"), "text", "label")
    part, kept = abstain.measure(told(model, CLOSED_TASK), Rows(CLOSED_TASK, rows[:30], rows[30:], "rows"), 1.0)
    names = [figure.name for figure in part.figures]
    assert names[:2] == ["right, when all are answered", "area under risk–coverage (AURC)"]
    assert kept.rows == 30 and kept.thresholds == sorted(kept.thresholds, reverse=True)
    (curve,) = part.curves
    assert curve.points[-1] == (1.0, pytest.approx(1 - (part.figures[0].value or 0)))
    aurc = part.figures[1]
    assert aurc.low is not None and aurc.value is not None and aurc.low <= aurc.value


def test_thresholds_know_nothing_of_the_rows_that_judge_them(model: ModelPredictor) -> None:
    closed = told(model, CLOSED_TASK)
    rows = examples(closed_rows(40, "now"), "text", "label")
    said = [closed.answer(row.messages) for row in rows]
    right = tuple(replace(row, answers=(text,)) for row, text in zip(rows[:20], said[:20]))
    wrong = tuple(
        replace(row, answers=(next(label for label in CLOSED if label != text),))
        for row, text in zip(rows[20:], said[20:])
    )
    part, kept = abstain.measure(closed, Rows(CLOSED_TASK, right, wrong, "rows"), 1.0)
    assert {risk for _, risk in kept.thresholds} == {0.0} and part.figures[0].value == 0


def test_rows_of_a_file_are_halved(model: ModelPredictor, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", closed_rows(40, "now"))
    given, _ = own_rows(str(tmp_path), model, LimitsConfig(rows=path), lambda event: None)
    assert given is not None
    halves = [{row.prompt for row in part} for part in (given.calibrate, given.test)]
    assert len(halves[0] | halves[1]) == 40 and not halves[0] & halves[1] and min(map(len, halves)) > 10


@pytest.mark.parametrize(
    ("text", "found"),
    [("He did not.", True), ("It isn't so", True), ("Nobody noted it", False), ("There is no such king", True)],
)
def test_words_of_denial_are_whole_words(text: str, found: bool) -> None:
    assert premises.denies(text, ["not", "no", "n't"]) is found


def test_false_premises_are_asked(model: ModelPredictor) -> None:
    part = premises.measure(model, 0.1)
    shown = templates.read_data("premises.json")["premises"]
    questions = [[{"role": "user", "content": item["question"]}] for item in shown]
    given = [[item["along"], item["corrects"]] for item in shown]
    tokens = [[len(ids) for ids in model.tokenizer.answer_ids(each)] for each in given]
    along = [nats[0] / count[0] > nats[1] / count[1]
             for nats, count in zip(answer_nats(plain(model), questions, given), tokens)]  # fmt: skip
    assert premises.measure(model, 1.0).figures[0].value == np.mean(along)
    assert part.figures[0].n == premises.LEAST and "too short for 16 of the 24" in part.notes[-1]


def test_passages_are_given_taken_away_and_changed(model: ModelPredictor) -> None:
    rows = (
        Example(({"role": "user", "content": "on which floor?"},), ("third floor",), doc_ids=("a",)),
        Example(({"role": "user", "content": "what colour?"},), ("green",), doc_ids=("b",)),
        Example(({"role": "user", "content": "in how many days?"},), ("two",), doc_ids=("none",)),
    )
    documents = {"a": Document("a", "Cards", "The desk is on the third floor.", ""),
                 "b": Document("b", "Labels", "Labels are green.", "")}  # fmt: skip
    first, second = passages.cases(rows, documents)
    assert first.changed is not None and first.changed.text == "The desk is on the green."
    assert second.changed is not None and second.changed.text == "Labels are third floor."
    part = passages.measure(told(model, SHORT), Rows(SHORT, (), rows, "rows"), documents, 1.0)
    assert [figure.name for figure in part.figures] == [
        "score with the right passage", "score without a passage", "says what the changed passage says",
        "keeps the right answer against it", "groundedness: gain of log p per token",
        "answers with words that stand nowhere",
    ]  # fmt: skip


def test_the_gain_is_with_the_passage_less_without(monkeypatch: pytest.MonkeyPatch, model: ModelPredictor) -> None:
    rows = examples(short_rows(4), "question", "answer")
    used = passages.cases(rows, {f"d{i}": Document(f"d{i}", "", f"It is {row.answer}.", "")
                                 for i, row in enumerate(rows)})  # fmt: skip
    nats = lambda model, rows, hits: [np.array([-1.0, -2.0]) if each else np.array([-4.0, -4.0]) for each in hits]  # noqa: E731
    monkeypatch.setattr(passages, "accepted_nats", nats)
    assert passages._gain(passages.reading(told(model, SHORT)), used).value == pytest.approx(2.5)
    nowhere = passages._from_nowhere([f"It is {used[0].row.answer}", "Perhaps yesterday", "It", "comes Friday"], used)
    assert nowhere.value == 0.5


def test_words_from_nowhere_are_content_words() -> None:
    assert passages.words("The cards cost 9 euros, no more") == {"card", "cost", "9", "euro"}


def test_a_long_passage_is_the_part_with_the_answer(model: ModelPredictor) -> None:
    row = Example(({"role": "user", "content": "where?"},), ("Oslo",), doc_ids=("a",))
    text = "x " * 2000 + "in Oslo " + "y " * 2000
    (case,) = passages.cases([row], {"a": Document("a", "", text, "")})
    assert "Oslo" in case.passage.text and len(case.passage.text) == passages.LONGEST


def test_rows_of_a_group_widen_the_intervals_of_calibration_and_risk(model: ModelPredictor) -> None:
    rows = examples(closed_rows(60, "now"), "text", "label")
    grouped = tuple(replace(row, group=row.answer) for row in rows)
    alone, over_groups = (
        abstain.measure(told(model, CLOSED_TASK), Rows(CLOSED_TASK, each[:30], each[30:], "rows"), 1.0)[0].figures
        for each in (rows, grouped)
    )
    for one, other in zip(alone[:4], over_groups[:4], strict=True):
        assert one.value == other.value and (one.high or 0) - (one.low or 0) < (other.high or 0) - (other.low or 0)


def test_one_group_says_nothing_of_the_area_under_risk_and_more_say_more() -> None:
    generator = np.random.default_rng(0)
    confidence, wrong = generator.uniform(size=240), generator.uniform(size=240) < 0.3
    assert selective.aurc_interval(confidence, wrong, np.zeros(240, int)) == (0.0, 1.0)
    widths = [
        high - low
        for low, high in (selective.aurc_interval(confidence, wrong, np.arange(240) % count) for count in (2, 8, 60))
    ]
    low, high = selective.aurc_interval(confidence, wrong)
    assert widths[0] > widths[1] > 0.8 * widths[2] and widths[2] == pytest.approx(high - low, rel=0.5)


def test_agreement_of_drawn_answers(model: ModelPredictor) -> None:
    rows = examples(short_rows(6), "question", "answer")
    part = consistency.measure(told(model, SHORT), Rows(SHORT, (), rows, "rows"), 1.0)
    agreement = part.figures[0].value
    assert agreement is not None and 0.99 / consistency.DRAWN <= agreement < 1  # every draw has a seed of its own


def test_what_a_suite_lacks_is_said(model: ModelPredictor) -> None:
    rows = examples(closed_rows(8, "now"), "text", "label")
    copying = CopyPredictor(examples=rows, task=CLOSED_TASK)
    assert truth.measure(Inputs(copying, LimitsConfig())).left_out == [
        "no language model answers, so there are no log-probabilities to compare"
    ]
    suite = truth.measure(Inputs(model, LimitsConfig()), 0.1)
    assert [line.partition(":")[0] for line in suite.left_out] == [
        "TruthfulQA and HaluEval", "when to abstain, self-consistency, documents",
    ]  # fmt: skip


def test_the_command_measures_rows_with_documents(model_folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "doc_id": f"d{i}"} for i, row in enumerate(short_rows(24))]
    pages = [{"doc_id": f"d{i}", "text": f"Here stands {row['answer']} alone."} for i, row in enumerate(rows)]
    arguments = ("--rows", write_rows(tmp_path / "rows.jsonl", rows), "--documents",
                 write_rows(tmp_path / "pages.jsonl", pages), "--budget", "20s", "--out", tmp_path / "out")  # fmt: skip
    done = command("limits", model_folder, "--suite", "truth", *arguments, "--json")
    assert done.status == 0, done.err
    names = [part["name"] for part in done.document["suites"][0]["parts"]]
    assert names == ["false premises", "when to abstain", "self-consistency", "your documents"]
    kept = Limits.read(tmp_path / "out" / "limits.json")
    assert kept.abstention is not None and kept.abstention.thresholds
    assert json.loads((tmp_path / "out" / "limits.json").read_text())["suites"][0]["abstention"]["rows"] > 0
