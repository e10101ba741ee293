"""Questions that any model answers: the same bits alone, among others, in any order; and what an oracle computes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_refused

from riyaz.data import Message
from riyaz.data.questions import Choice, Question
from riyaz.engine.engine import Engine
from riyaz.engine.parts import finished
from riyaz.engine.request import Request
from riyaz.engine.runner import TokenRun
from riyaz.engine.torch import load as torch_load
from riyaz.predictor import PromptedModel, open_model
from riyaz.predictor.decided import Decided
from riyaz.predictor.deciding import ASKING, NULL_TEXTS, Decisions, _known, deciding, deciding_counted
from riyaz.sources import open_source

TEXT = [{"role": "user", "content": "the card payment was declined and the transfer is pending"}]
LONG = " and then the other one returns to the place it came from" * 3
NEAR = 1e-4  # of a probability in float32: the oracle reads each whole prompt with each choice
PRECISIONS = ("fp32", "bf16", "int8")


def chosen(name: str, *values: str | bool, instructions: str = "Which?") -> Question:
    return Question(name, "choice", instructions, tuple(map(Choice, values)))


QUESTIONS = (
    chosen("team", "billing", "delivery", "refund", "delivery delay", "bill"),
    Question("urgent", "predicate", "Is it urgent?"),
    Question(
        "mood", "score", "How content?", (Choice("angry", "the writer complains"), Choice("calm"), Choice("glad"))
    ),
    chosen(
        "alike", LONG + " now", LONG + " then", LONG, instructions="\n What happens next in this long question?" * 4
    ),
    chosen("typed", "true", True, False, "no"),
    chosen("special", "<|im_end|>", "naïve 🙂", "日本", "<|im_start|>assistant", instructions="<|im_end|> 日本?"),
)


@pytest.fixture(scope="module", params=PRECISIONS)
def model(request: pytest.FixtureRequest, model_folder: Path) -> PromptedModel:
    return open_model(model_folder, precision=request.param)


def decided(
    model: PromptedModel, questions: Sequence[Question], conversation: Sequence[Message] = TEXT
) -> list[Decided]:
    return finished(deciding(model, conversation, questions))


def counted(model: PromptedModel, questions: Sequence[Question]) -> Decisions:
    return finished(deciding_counted(model, [TEXT], questions))[0]


def bits(answers: Sequence[Decided]) -> list[bytes]:
    return [answer.probabilities.tobytes() for answer in answers]


def test_an_answer_has_the_same_bits_alone_among_400_in_any_order_and_in_small_parts(model: PromptedModel) -> None:
    fillers = [
        chosen(f"filler {i}", *(f"{word} {i}" for word in ("card", "order", "login")[: 2 + i % 2])) for i in range(394)
    ]
    mixed = [*fillers[:200], *QUESTIONS, *fillers[200:]]
    among = bits(decided(model, mixed)[200 : 200 + len(QUESTIONS)])
    _known.clear()  # what is known without content has the same bits when it is computed again
    alone = [bits(decided(model, [question]))[0] for question in QUESTIONS]
    assert alone == among
    assert bits(decided(model, QUESTIONS[::-1]))[::-1] == among
    model.lm.read_in_pieces(64, keep_bytes=2**26)
    try:
        for _ in range(2):  # the second time behind kept pages
            assert bits(decided(model, QUESTIONS)) == among
        assert counted(model, QUESTIONS).cached_tokens > 0
    finally:
        model.lm.read_in_pieces(0)


def test_an_answer_has_the_same_bits_beside_other_inputs(model: PromptedModel) -> None:
    others = [[{"role": "user", "content": text}] for text in ("", "what is the weather like?", LONG * 3)]
    rows = finished(deciding_counted(model, [*others, TEXT], QUESTIONS))
    assert bits(rows[-1].answers) == bits(decided(model, QUESTIONS))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_choices_changes_no_bit(model: PromptedModel, seed: int) -> None:
    for question in QUESTIONS:
        order = np.random.default_rng(seed).permutation(len(question.choices))
        turned = replace(question, choices=tuple(question.choices[place] for place in order))
        (one,), (other,) = decided(model, [question]), decided(model, [turned])
        assert one.probabilities[order].tobytes() == other.probabilities.tobytes()
        assert one.answer == other.answer or question.type == "predicate"


def test_what_is_known_of_a_question_is_its_owners_alone(model_folder: Path) -> None:
    """Or the time of an answer would tell one who asks that another has asked the same question."""
    model, lengths = open_model(model_folder, precision="fp32"), list[int]()
    model.lm.read_in_pieces(256, 2**24)
    forward = model.lm.runner.forward

    def counted(runs: Sequence[TokenRun]) -> list:
        lengths.append(sum(len(run.tokens) for run in runs))
        return forward(runs)

    model.lm.runner.forward = counted  # type: ignore[method-assign]
    read, answers = [], []
    for owner in (0, 7, 8, 7, 8, 0):
        (made,) = finished(deciding_counted(model, [TEXT], QUESTIONS, owner=owner))
        answers.append(bits(made.answers))
        read.append((sum(lengths), made.cached_tokens > 0))
        lengths.clear()
    beginning = len(_known[model.lm].beginning or ())
    assert read[1] == read[2] and read[3] == read[4] == read[5] and read[3][0] < read[1][0], read
    assert read[0][0] - read[1][0] in (0, beginning) and len(set(map(str, answers))) == 1
    assert [cached for _, cached in read[3:]] == [True] * 3


def test_probabilities_are_those_of_whole_prompts(model_folder: Path) -> None:
    model = open_model(model_folder, precision="fp32")
    oracle = replace(model, lm=Engine(torch_load.load_runner(open_source(model_folder), "float32")))
    for question, answer, by_torch in zip(QUESTIONS, decided(model, QUESTIONS), decided(oracle, QUESTIONS)):
        wanted = plain(oracle, question)
        assert answer.probabilities == pytest.approx(wanted, abs=NEAR), question.name
        assert by_torch.probabilities == pytest.approx(wanted, abs=NEAR), question.name
        assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)


def plain(model: PromptedModel, question: Question) -> np.ndarray:
    """The probabilities, from a prompt for each text of each choice."""
    said = {True: "yes", False: "no"} if question.type == "predicate" else {}
    scores = []
    for choice in question.choices:
        texts = [said.get(choice.value, choice.text.strip()), *([choice.description] if choice.description else [])]
        ids = [ids[:-1] for ids in model.tokenizer.answer_ids(texts)]
        scores.append(np.mean([_pmi(model, question, each) / len(each) ** 0.5 for each in ids]))
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum()


def _pmi(model: PromptedModel, question: Question, answer: Sequence[int]) -> float:
    def log_p(text: str) -> float:
        content = f"{text}\n\n{question.instructions}{ASKING[question.type]}"
        (prompt,) = model.tokenizer.render([[{"role": "user", "content": content}]])
        return float(model.lm.logprobs([Request(0, tuple(prompt))], [answer])[0].astype(np.float64).sum())

    return log_p(TEXT[0]["content"]) - float(np.mean([log_p(null) for null in NULL_TEXTS]))


def test_choices_with_the_same_text_share_its_probability(model: PromptedModel) -> None:
    (answer,) = decided(model, [QUESTIONS[4]])
    assert answer.probabilities[0] == answer.probabilities[1] > 0
    (alike,) = decided(model, [chosen("words", "lost_card", "lost card", "late")])
    assert alike.probabilities[0] != alike.probabilities[1]  # told apart where only their words are the same


def test_a_question_without_a_name_is_an_artifacts_own_by_its_instructions() -> None:
    own, label = Question("urgent", "predicate", "Is it urgent?"), chosen("", "a", "b", instructions="Classify it.")
    assert own.agrees(replace(own, name="")) and own.agrees(replace(own, instructions="Must we hurry?"))
    assert not own.agrees(Question("", "predicate", "Is it about cats?")), "every predicate has these choices"
    assert label.agrees(chosen("", "b", "a")) and label.agrees(chosen("team", "b", "a")), (
        "an artifact's one label column"
    )


def test_a_description_counts(model: PromptedModel) -> None:
    bare = replace(QUESTIONS[2], choices=tuple(Choice(choice.value) for choice in QUESTIONS[2].choices))
    assert bits(decided(model, [bare])) != bits(decided(model, [QUESTIONS[2]]))


def test_what_does_not_fit_the_context_is_refused(model: PromptedModel) -> None:
    long = [{"role": "user", "content": "the order arrives " * 2000}]
    with assert_refused("does not fit the context"):
        decided(model, QUESTIONS, long)
    wordy = chosen("wordy", "yes", "the order arrives " * 1000)
    with assert_refused("does not fit the context"):
        decided(model, [wordy])


def test_usage_counts_the_input_once(model: PromptedModel) -> None:
    one, two = counted(model, QUESTIONS[:1]), counted(model, QUESTIONS[:2])
    (both,) = model.tokenizer.render([[{"role": "user", "content": f"{TEXT[0]['content']}\n\nIs it urgent?"}]])
    assert one.input_tokens < two.input_tokens < one.input_tokens + len(both)


def test_the_question_has_a_turn_of_its_own_behind_an_answer(model: PromptedModel) -> None:
    turns = [*TEXT, {"role": "assistant", "content": "please help"}]
    (answer,) = decided(model, QUESTIONS[:1], turns)
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)
