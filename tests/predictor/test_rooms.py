"""How long a free answer may be, and that one which fills its room ends with a whole sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_comparison

from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.methods import zero_shot
from riyaz.methods.fitting.base import ArmPlan, Context, instruction_only
from riyaz.methods.fitting.choices import LIMIT_ROWS, answer_limit, answer_limits, base_predictor, choose_answer_limit
from riyaz.predictor import FreePredictor, open_model, predictor_for
from riyaz.sources import open_source
from riyaz.text.sentences import whole_sentences

FREE = Task("free", (), "rouge_l", "Answer.", "")
TALK = "The shop opens at nine. It closes at five. Many people like shops and many people go there"


def rows(count: int, answers: tuple[str, ...]) -> tuple[Example, ...]:
    return tuple(
        Example(({"role": "user", "content": f"question {i}"},), (answers[i % len(answers)],), where=f"t.jsonl:{i}")
        for i in range(count)
    )


@pytest.fixture
def context(model_folder: Path, tmp_path: Path, home: Path):
    source = open_source(model_folder)
    with tiny_comparison.small_machine(home):
        yield Context(
            source=source, tokenizer=source.tokenizer(), task=FREE,
            train=rows(20, ("The shop opens at nine.", "At nine.", "The shop opens at nine in the morning, I think.")),
            valid=rows(LIMIT_ROWS + 4, ("The shop opens at nine.",)), arm=ArmPlan("zero_shot"), valid_rows=100,
            compute="float32", seed=1, folder=tmp_path, listen=lambda event: None, prompt_text=instruction_only(FREE),
        )  # fmt: skip


class Talking:
    """A model that says the same to everything, as far as it is let."""

    context = 4096

    def __init__(self, ids):
        self.ids, self.asked = ids, 0

    def adapter_tokens(self, adapter):
        return 0

    def generate(self, requests, progress=None):
        self.asked += len(requests)
        return [list(self.ids[: request.limit]) for request in requests]

    def stream(self, request):
        return iter(self.ids[: request.limit])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two. Thr", "One. Two."),
        ("No end", ""),
        ("One.", ""),  # it may go on: 1.5
        ("Costs 3.5 now", ""),
        ('He said "go." Then', 'He said "go."'),
        ("第一句。第二", "第一句。"),
        ("What? Yes! No… so", "What? Yes! No…"),
    ],
)
def test_whole_sentences(text, whole):
    assert whole_sentences(text) == whole


def test_an_answer_that_fills_its_room_ends_with_a_sentence_and_another_stays_as_it_is(model_folder):
    plain = open_model(model_folder)
    ids = plain.tokenizer.encode(TALK)
    asked = [{"role": "user", "content": "when"}]

    def said(room, task=FREE):
        return replace(plain, lm=Talking(ids), task=task, max_new_tokens=room)

    assert said(len(ids)).answer(asked) == "The shop opens at nine. It closes at five."
    assert said(len(ids) + 1).answer(asked) == TALK, "it ended by itself"
    assert said(len(ids), task=None).answer(asked) == TALK, "no task: nobody asked for an answer"
    first = len(plain.tokenizer.encode("The shop op"))
    assert TALK.startswith(said(first).answer(asked)) and said(first).answer(asked) != "", "no sentence ends: all of it"


@pytest.mark.parametrize("task", [FREE, None])
def test_what_is_streamed_is_the_answer(model_folder, task):
    plain = open_model(model_folder)
    ids = plain.tokenizer.encode(TALK)
    asked = [{"role": "user", "content": "when"}]
    for room in range(1, len(ids) + 2):
        predictor = replace(plain, lm=Talking(ids), task=task, max_new_tokens=room)
        parts = list(predictor.stream(asked))
        assert "".join(parts) == predictor.answer(asked), room
    assert len(parts) >= (3 if task else 10)


def test_the_room_is_chosen_on_validation_from_one_answer_a_row(context):
    ids = context.tokenizer.encode(TALK)
    limits = answer_limits(context)
    assert limits == sorted(set(limits), reverse=True) and limits[0] < answer_limit(context)
    lm = Talking(ids)
    chosen, record = choose_answer_limit(context, predictor_for(context.prompt_text.read_by(context.tokenizer, lm)))
    assert lm.asked == LIMIT_ROWS
    assert set(record["rooms"]) == set(map(str, answer_limits(context)))
    best = max(record["rooms"].values())
    assert record["rooms"][str(chosen)] == best > min(record["rooms"].values())
    assert record["max_new_tokens"] == chosen


@pytest.mark.parametrize("kind", ["short", "closed"])
def test_other_tasks_have_the_room_they_need(context, kind):
    task = Task(kind, ("a", "b") if kind == "closed" else (), "exact_match", "Answer.", "")
    other = replace(context, task=task)
    lm = Talking([])
    predictor = predictor_for(replace(context.prompt_text, task=task).read_by(context.tokenizer, lm))
    chosen, record = choose_answer_limit(other, predictor)
    assert (chosen, record, lm.asked) == (answer_limit(other), {}, 0)


def test_an_untrained_arm_of_free_answers_says_its_room(context):
    fitted = zero_shot.fit(context)
    assert fitted.max_new_tokens in answer_limits(context)
    assert fitted.chosen["max_new_tokens"] == fitted.max_new_tokens
    plain = base_predictor(context)
    assert isinstance(plain, FreePredictor)
    assert plain.max_new_tokens == answer_limit(context) > fitted.max_new_tokens
