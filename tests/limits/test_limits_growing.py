"""Examples and passages as they grow: what each count is asked with, its loss, and what does not fit the context."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from tiny_comparison import CLOSED, closed_rows, short_rows

from riyaz.artifact import TextPart
from riyaz.config import LimitsConfig
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.limits import context, growing, passages
from riyaz.limits.ask import plain
from riyaz.limits.inputs import Inputs, Rows
from riyaz.limits.sampled import shortest
from riyaz.predictor import ModelPredictor, open_model, predictor_for
from riyaz.results import Figure, Part
from riyaz.retrieval.documents import Document

TASK = Task("closed", tuple(sorted(CLOSED)), "accuracy", "Classify the text.", "")
SHORT = Task("short", (), "exact_match", "Answer the question in a few words.", "")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelPredictor:
    folder = tiny_llama.write_hf_folder(tmp_path_factory.mktemp("growing") / "tiny", context=512)
    return open_model(folder, precision="fp32")


def told(model: ModelPredictor, task: Task) -> ModelPredictor:
    return predictor_for(replace(model, text=TextPart(task.instruction), task=task), max_new_tokens=8)


def examples(rows: list[dict[str, str]], prompt: str, answer: str) -> tuple[Example, ...]:
    return tuple(
        Example(({"role": "user", "content": row[prompt]},), (row[answer],), where=f"r:{i}", doc_ids=(f"d{i}",))
        for i, row in enumerate(rows)
    )


def named(part: Part, name: str) -> dict[str, Figure]:
    return {figure.group: figure for figure in part.figures if figure.name == name}


def test_each_count_of_examples_is_asked_with_as_many(model: ModelPredictor) -> None:
    pool, asked = (examples(closed_rows(count, ending), "text", "label") for count, ending in ((60, "a"), (5, "b")))
    part = growing.examples_grow(told(model, TASK), pool, asked, "rows", 1.0)
    losses = named(part, "loss of the right answer")
    assert list(losses)[:4] == ["0 examples", "1 example", "2 examples", "4 examples"] and len(losses) < 8
    turns = [turn for row in pool[:2] for turn in (*row.messages, {"role": "assistant", "content": row.answer})]
    system = {"role": "system", "content": TASK.instruction}
    nats = [
        passages.accepted_nats(plain(model), [replace(row, messages=(system, *turns, *row.messages))], [[]])[0].sum()
        for row in asked
    ]
    assert losses["2 examples"].value == pytest.approx(-float(np.mean(nats)), abs=1e-3)
    assert named(part, "score")["1 example"].even == pytest.approx(1 / 3)
    assert part.curves[0].points[2] == (2.0, losses["2 examples"].value)
    (note,) = part.notes  # the prompt is longer than the context: neither cut nor asked
    found = re.fullmatch(r"(\d+) examples make a prompt of (\d+) tokens, longer than the context: not asked.", note)
    assert found is not None and f"{found[1]} examples" not in losses and int(found[2]) > 512 - 10


def test_a_short_budget_asks_with_fewer(model: ModelPredictor) -> None:
    part = growing.made_up(plain(model), 0.3)
    counts = [figure.n for figure in part.figures if figure.name == "score"]
    whole = growing.made_up(plain(model), 1.0)
    assert 0 < len(counts) < sum(figure.name == "score" for figure in whole.figures)
    assert part.notes[0].startswith("The budget was too short for ") and set(counts) == {16}
    assert f"after up to {part.figures[-1].group.split()[0]} examples" in part.what
    assert shortest([10, 20, 40], 1.0) == 3 and shortest([10, 20, 40], 0.5) == 2 and shortest([10, 20], 0.0) == 1


def test_made_up_names_are_told_by_examples_alone(model: ModelPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Example, ...]] = []
    monkeypatch.setattr(
        growing, "examples_grow", lambda told, pool, asked, *_: given.extend((tuple(pool), tuple(asked)))
    )
    growing.made_up(plain(model), 1.0)
    pool, asked = given
    nouns = [{row.prompt.split()[-1] for row in rows} for rows in (pool, asked)]
    assert len(pool) == 2 * 32 * 16 and len(asked) == growing.QUESTIONS and not nouns[0] & nouns[1]
    assert {row.answer for row in pool[:8]} == {"blick", "zorp"}


def test_the_right_passage_is_always_among_them(model: ModelPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[str]]] = []
    real = passages.answers
    monkeypatch.setattr(passages, "answers", lambda model, rows, hits: seen.append(
        [[hit.text for hit in each] for each in hits]) or real(model, rows, hits))  # fmt: skip
    part = growing.facts(plain(model), "one two three four five six. " * 500, context.PLACES, 1.0)
    assert [len(each[0]) for each in seen] == [1, 2, 4][: len(seen)] and len(seen) > 1
    for prompts in seen:
        for place, texts in zip(context.PLACES, prompts):
            assert sum(f"The secret number of {place} is " in text for text in texts) == 1
    *_, most = seen
    places = ["secret" in texts[0] for texts in most]
    assert places[0] and not places[-1]  # from the first to the last
    assert list(named(part, "score")) == ["1 passage", "2 passages", "4 passages"][: len(seen)]
    assert "not asked" in part.notes[-1]


def test_an_answer_that_holds_the_number_counts(model: ModelPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = lambda model, rows, hits: [f"It is {row.answer}." for row in rows]  # noqa: E731
    monkeypatch.setattr(passages, "answers", reading)
    part = growing.facts(plain(model), "one two three four. " * 500, context.PLACES, 0.0)
    assert named(part, "score")["1 passage"].value == 1
    monkeypatch.setattr(passages, "answers", lambda model, rows, hits: ["It is 7." for _ in rows])
    assert named(growing.facts(plain(model), "one two. " * 900, context.PLACES, 0.0), "score")["1 passage"].value == 0


def test_own_rows_grow_among_their_documents(model: ModelPredictor) -> None:
    rows = examples(short_rows(24), "question", "answer")
    documents = {f"d{i}": Document(f"d{i}", "", f"Here stands {row.answer}.", "") for i, row in enumerate(rows)}
    answering = told(model, SHORT)
    inputs = Inputs(model, LimitsConfig(), answering=answering, rows=Rows(SHORT, rows[:12], rows[12:], "rows"),
                    documents=documents)  # fmt: skip
    names = [(part.name, part.source) for part in context.measure(inputs, 0.2).parts]
    assert ("your rows after examples as they grow", "rows") in names
    assert ("your rows among passages as they grow", "rows") in names
    part = growing.own_passages(answering, inputs, 1.0)
    assert part is not None and part.figures[0].n == growing.FACTS
    assert growing.own_passages(told(model, TASK), inputs, 1.0) is None
    assert growing.own_examples(answering, replace(inputs, rows=None), 1.0) is None


def test_prompts_beyond_the_context_are_counted(tmp_path: Path) -> None:
    model = open_model(tiny_llama.write_hf_folder(tmp_path / "tiny", context=128))
    rows = examples(closed_rows(8, "now"), "text", "label")
    many = replace(told(model, TASK), text=TextPart(TASK.instruction, examples="fixed"), examples=rows)
    part = context._own(many, Inputs(model, LimitsConfig(), answering=many, rows=Rows(TASK, rows, rows, "rows")))
    assert part.figures[-1].value == 1 and (part.figures[0].value or 0) > 128
