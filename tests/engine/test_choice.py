"""What a server asks of the engine beside reading everything anew: pieces of prompts, log-probabilities, biases."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import tiny_llama

from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine, Step
from riyaz.engine.opening import open_engine
from riyaz.engine.request import Added, Scored
from riyaz.sources import open_source

END, NEW = 2, 8
SAME = 2e-3  # nats: weights and keys are bfloat16, and a long run is multiplied otherwise than a short one


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return open_engine(
        open_source(tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)), "fp32"
    )


@pytest.fixture
def in_pieces(engine: Engine) -> Iterator[Engine]:
    """The engine reading at most 40 tokens of prompts in a step."""
    slots = engine._scheduler.slots
    engine.read_in_pieces(40)
    yield engine
    engine._piece, engine._scheduler.slots = 0, slots


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(3, 512, length).tolist())


def asked(seed: int, length: int, **options: object) -> Request:
    return Request(0, prompt(seed, length), limit=NEW, stop=frozenset({END}), **options)  # type: ignore[arg-type]


def anew(engine: Engine, request: Request, answer: list[int]) -> np.ndarray:
    """Log-probabilities (V,) after an answer, read from the start."""
    (rows,) = engine.distributions([replace(request, tokens=(*request.tokens, *answer), limit=0, echo=None)], [[0]])
    return rows[0]


def told(engine: Engine, requests: list[Request]) -> dict[int, list[Step]]:
    """Every step of the requests, in the order in which they were added."""
    steps: dict[int, list[Step]] = {engine.add(request): [] for request in requests}
    while any(not each or not each[-1].done for each in steps.values()):
        for step in engine.step():
            steps[step.ticket].append(step)
    return steps


def test_every_token_is_scored_as_if_it_was_read_anew(engine: Engine) -> None:
    for sampling in (Sampling(), Sampling(temperature=0.8, top_p=0.9, seed=3), Sampling(temperature=1.0, top_k=4)):
        request = asked(1, 20, top=3, sampling=sampling)
        (steps,) = told(engine, [request]).values()
        assert [step.token for step in steps if step.token is not None] == engine.generate([request])[0]
        answer: list[int] = []
        for step in steps:
            wanted, scored = anew(engine, request, answer), step.scored
            assert scored is not None and abs(wanted[scored.token] - scored.log_probability) < SAME
            assert [token for token, _ in scored.top] == np.argsort(-wanted, kind="stable")[:3].tolist()
            answer.append(scored.token)


def test_a_bias_bans_and_forces_and_is_not_in_the_probabilities(engine: Engine) -> None:
    plain = asked(2, 12, top=1)
    free = engine.generate([plain])[0]
    banned = replace(plain, added=Added(((free[0], -100.0), (9999, 5.0))))
    forced = replace(plain, added=Added(((77, 100.0),)))
    drawn = replace(plain, sampling=Sampling(temperature=1.0, top_k=2), added=Added(((77, 100.0),)))
    assert free[0] not in engine.generate([banned])[0]
    assert engine.generate([forced, drawn]) == [[77] * NEW] * 2
    (first, *_), _ = told(engine, [forced, plain]).values()
    assert first.scored is not None and abs(first.scored.log_probability - anew(engine, plain, [])[77]) < SAME
    assert first.scored.top[0][0] == free[0], "the likeliest tokens are the model's own"


@pytest.mark.parametrize("kind", ["frequency_penalty", "presence_penalty"])
def test_penalties_equal_a_plain_loop(engine: Engine, kind: str) -> None:
    request = asked(4, 9, added=Added(**{kind: 1.5}))
    answer: list[int] = []
    for _ in range(NEW):
        scores = anew(engine, request, answer).astype(np.float64)
        for token in set(answer):
            scores[token] -= 1.5 * (answer.count(token) if kind == "frequency_penalty" else 1)
        answer.append(int(scores.argmax()))
    assert engine.generate([request])[0] == answer[: answer.index(END) if END in answer else NEW]
    assert engine.generate([replace(request, added=None)])[0] != answer, "without a penalty it repeats"


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_the_prompt_is_scored_as_an_answer_to_its_first_token(engine: Engine, limit: int) -> None:
    tokens = prompt(5, 300)  # read in two pieces
    request = Request(0, tokens, limit=limit, echo=2, top=2)
    (steps,) = told(engine, [request]).values()
    scored = steps[0].prompt
    (wanted,) = engine.distributions([Request(0, tokens[:1])], [tokens[1:]])
    assert [each.token for each in scored] == list(tokens[1:])
    for row, each in zip(wanted, scored):
        assert abs(row[each.token] - each.log_probability) < SAME
        assert [token for token, _ in each.top] == np.argsort(-row, kind="stable")[:2].tolist()
    answer = [step.token for step in steps if step.token is not None]
    assert answer == engine.generate([Request(0, tokens, limit=limit)])[0] and len(answer) == limit
    assert all(not step.prompt for step in steps[1:])


def test_without_likeliest_tokens_there_are_none(engine: Engine) -> None:
    (steps,) = told(engine, [asked(5, 6, echo=0, top=0)]).values()
    assert len(steps[0].prompt) == 5 and {each.top for each in steps[0].prompt} == {()}
    assert steps[0].scored == Scored(steps[0].scored.token, steps[0].scored.log_probability)  # type: ignore[union-attr]


def test_pieces_give_the_same_answers(engine: Engine, in_pieces: Engine) -> None:
    requests = [asked(seed, length, top=0) for seed, length in enumerate((7, 130, 41, 300))]
    together = told(in_pieces, requests)
    alone = [told(in_pieces, [request]) for request in requests]
    assert [*together.values()] != [] and [[step.token for step in steps] for steps in together.values()] == [
        [step.token for step in steps] for each in alone for steps in each.values()
    ]
    for request, steps in zip(requests, together.values()):
        assert steps[0].scored is not None
        assert abs(anew(engine, request, [])[steps[0].scored.token] - steps[0].scored.log_probability) < SAME


def test_running_answers_go_on_while_a_long_prompt_is_read(in_pieces: Engine) -> None:
    short, long = in_pieces.add(replace(asked(1, 4), limit=30, stop=frozenset())), in_pieces.add(asked(2, 390))
    other = in_pieces.add(asked(3, 390))
    heard = [[step.ticket for step in in_pieces.step()] for _ in range(22)]
    assert all(short in step for step in heard), "it gets a token in every step"
    assert not any(long in step for step in heard[:10]) and long in heard[10], "ten pieces of 39 after the short prompt"
    assert not any(other in step for step in heard[:20]) and other in heard[20], "one after the other"
    for ticket in (short, long, other):
        in_pieces.cancel(ticket)
    assert in_pieces.step() == [] and in_pieces.cached_bytes == 0


def test_a_prompt_that_is_cancelled_leaves_nothing(in_pieces: Engine) -> None:
    in_pieces.add(asked(1, 390))
    in_pieces.step()
    in_pieces.cancel(in_pieces.running[0])
    assert in_pieces.running == [] and in_pieces.step() == []


def test_a_step_that_fails_is_read_again(in_pieces: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(6, 130)
    wanted = in_pieces.generate([request])
    ticket = in_pieces.add(request)
    in_pieces.step()

    def fails(runs: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(in_pieces._prefixes, "forward", fails)
        with pytest.raises(RuntimeError):
            in_pieces.step()
    found = []
    while ticket in in_pieces.running:
        found += [step.token for step in in_pieces.step() if step.token is not None]
    assert [found] == wanted
