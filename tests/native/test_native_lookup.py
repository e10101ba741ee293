"""Prompt lookup over the C++ engine: answers with drafts are those without, token by token, and passes are fewer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from native_models import Folders, folders_in, ids, lora_of, ours, soft_of

from riyaz import native
from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.engine.lookup import LONGEST, Times
from riyaz.engine.request import Added
from riyaz.engine.runner import Best, CacheFull, Each, Every, TokenRun, Top
from riyaz.engine.scheduler import Answer
from riyaz.serve.opening import Opener

KINDS = ("llama-biases", "qwen2-untied", "gemma3", "gpt2")
LIMIT = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders_in(tmp_path_factory)


def equal(one: object, other: object) -> bool:
    """Whether two results of a runner are the same to the last bit."""
    if isinstance(one, tuple):
        return all(map(np.array_equal, one, other))  # type: ignore[call-overload]
    return bool(np.array_equal(one, other))  # type: ignore[arg-type]


@pytest.mark.parametrize("kv", ["auto", "int8"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_drafted_run_computes_every_token_as_a_run_of_its_own(
    folders: Folders, kind: str, precision: str, kv: str
) -> None:
    if kv == "int8" and precision == "fp32":
        return
    runner = ours(folders(kind), precision, kv)
    generator = np.random.default_rng(5)
    prompt, answer = ids(generator, 57, runner.vocab_size), ids(generator, 31, runner.vocab_size)
    wants = [Top(40, answer[:i], 1.3) if i % 3 == 0 else Every() if i % 3 == 1 else Best() for i in range(31)]
    one, other = runner.open(), runner.open()
    runner.forward([TokenRun(one, prompt), TokenRun(other, prompt)])
    singly = [runner.forward([TokenRun(one, (token,), want)])[0] for token, want in zip(answer, wants)]
    (together,) = runner.forward([TokenRun(other, answer, Each(tuple(wants)))])
    assert all(map(equal, together, singly))
    for kept in (80, 64, 58):  # in a page, at its end, and in the one before
        runner.truncate(other, kept)
        assert runner.length(other) == kept
        again = runner.forward([TokenRun(other, answer[kept - 57 :], Each(tuple(wants[kept - 57 :])))])[0]
        assert all(map(equal, again, singly[kept - 57 :]))


def test_a_truncated_sequence_gives_its_pages_back(folders: Folders) -> None:
    runner = ours(folders("llama-biases"), "bf16")
    sequence = runner.open()
    runner.forward([TokenRun(sequence, (5,) * 40)])
    before = runner.model.cache_bytes
    runner.forward([TokenRun(sequence, (6,) * 70)])
    assert runner.model.cache_bytes > before
    runner.truncate(sequence, 40)
    assert runner.model.cache_bytes == before
    fork = runner.fork(sequence, 40)
    with pytest.raises(RuntimeError, match="other sequences"):
        runner.truncate(sequence, 39)
    runner.close(fork)
    runner.truncate(sequence, 39)


def prompts(engine: Engine, count: int, seed: int = 3) -> list[Request]:
    """Requests of all kinds: greedy and drawn, behind prefixes, with penalties, biases and probabilities."""
    generator, size = np.random.default_rng(seed), engine.runner.vocab_size
    prefix = ids(generator, 45, size)
    kinds = [
        {},
        {"sampling": Sampling(temperature=0.6, seed=4)},
        {"prefix": prefix},
        {"sampling": Sampling(temperature=0.4, top_k=5, top_p=0.9, seed=9), "prefix": prefix},
        {"sampling": Sampling(repetition_penalty=1.2)},
        {"added": Added(((7, 1.5),), 0.1, 0.05), "top": 3},
        {"top": 2, "echo": 2},
        {"sampling": Sampling(temperature=0.3, min_p=0.1, repetition_penalty=1.1, seed=2)},
    ]
    return [
        Request(i, ids(generator, 3 + 7 * i, size), limit=LIMIT, **kinds[i % len(kinds)])  # type: ignore[arg-type]
        for i in range(count)
    ]


def likely(requests: Sequence[Request], answers: Sequence[Sequence[int]]) -> list[Request]:
    """The requests with texts that their answers repeat in part: every seventh token is another."""
    changed = [[token if i % 7 else token - 1 for i, token in enumerate(answer, 1)] for answer in answers]
    return [
        replace(request, likely=(tuple(request.tokens[-3:]) + tuple(answer),))
        for request, answer in zip(requests, changed)
    ]


def scored(engine: Engine, requests: Sequence[Request]) -> list[list[tuple[object, ...]]]:
    """Every step of the requests together: tokens, probabilities and the prompts'."""
    steps: dict[int, list[tuple[object, ...]]] = {engine.add(request): [] for request in requests}
    while not all(each and each[-1][1] for each in steps.values()):
        for step in engine.step():
            steps[step.ticket].append((step.token, step.done, step.scored, step.prompt))
    return list(steps.values())


@pytest.mark.grid
@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_with_drafts_are_those_without(folders: Folders, kind: str, precision: str) -> None:
    engine = Engine(ours(folders(kind), precision))
    engine.load("pairs", lora_of(folders(kind), 1, 4))
    engine.load("soft", soft_of(folders(kind), 2, 5))
    requests = prompts(engine, 8)
    requests = [replace(each, adapter=(None, "pairs", "soft")[i % 3]) for i, each in enumerate(requests)]
    engine.drafts.mode = "off"
    answers = engine.generate(requests)
    steps = scored(engine, requests)
    stops = [replace(each, stop=frozenset(answer[9:12])) for each, answer in zip(requests, answers)]
    stopped = engine.generate(stops)
    assert engine.drafts.counts.drafted == 0
    engine.drafts.mode = "on"
    drafted = likely(requests, answers)
    assert engine.generate(drafted) == answers
    assert engine.drafts.counts.accepted > LIMIT
    assert engine.drafts.counts.drafted > engine.drafts.counts.accepted
    assert scored(engine, drafted) == steps
    assert engine.generate(likely(stops, answers)) == stopped
    for limit in (1, 2, 5):
        assert engine.generate([replace(each, limit=limit) for each in drafted]) == [each[:limit] for each in answers]
    for each, answer in zip(drafted, answers):
        assert list(engine.stream(each)) == answer
    engine.drafts.mode = "auto"
    assert engine.generate(drafted) == answers


def test_right_drafts_take_fewer_passes(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(ours(folders("llama-biases"), "bf16"))
    engine.drafts.mode = "off"
    request = prompts(engine, 1)[0]
    (answer,) = engine.generate([request])
    passes, forward = [], engine.runner.forward
    monkeypatch.setattr(engine.runner, "forward", lambda runs: passes.append(1) or forward(runs))
    engine.drafts.mode = "on"
    right = replace(request, likely=((*request.tokens[-3:], *answer),))
    assert engine.generate([right]) == [answer]
    assert len(passes) <= 2 + LIMIT // LONGEST


def test_a_step_reports_every_token_and_a_cancelled_request_none_more(folders: Folders) -> None:
    engine = Engine(ours(folders("qwen2-untied"), "int4"))
    engine.drafts.mode = "off"
    requests = prompts(engine, 3)
    answers = engine.generate(requests)
    engine.drafts.mode = "on"
    tickets = [engine.add(each) for each in likely(requests, answers)]
    got: dict[int, list[int]] = {ticket: [] for ticket in tickets}
    for _ in range(4):
        for step in engine.step():
            assert step.token is not None
            got[step.ticket].append(step.token)
    assert len(got[tickets[0]]) > 4
    engine.cancel(tickets[0])
    kept = len(got[tickets[0]])
    while steps := engine.step():
        for step in steps:
            assert step.token is not None
            got[step.ticket].append(step.token)
    assert got[tickets[0]] == answers[0][:kept]
    assert [got[ticket] for ticket in tickets[1:]] == answers[1:]
    assert engine.cached_bytes == 0


def test_prompts_in_pieces_that_are_kept_are_drafted_for_too(folders: Folders) -> None:
    engine = Engine(ours(folders("gemma3"), "bf16"))
    engine.read_in_pieces(64, 2**24)
    generator = np.random.default_rng(8)
    first = ids(generator, 90, engine.runner.vocab_size)
    requests = [
        Request(0, first, limit=LIMIT),
        Request(1, (*first, *ids(generator, 50, engine.runner.vocab_size)), limit=LIMIT),
    ]
    engine.drafts.mode = "off"
    answers = [engine.generate([each])[0] for each in requests]
    engine.drafts.mode = "on"
    assert engine.generate(likely(requests, answers)) == answers
    assert engine.drafts.counts.accepted > 0


@pytest.mark.parametrize("error", [native.extension().CacheFull("keys and values"), RuntimeError("not finite")])
def test_a_pass_that_fails_with_drafts_is_made_without(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = Engine(ours(folders("llama-biases"), "bf16"))
    engine.drafts.mode = "off"
    model = engine.runner.model
    failed: list[int] = []

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

        def forward(self, sequences: np.ndarray, counts: np.ndarray, *more: object) -> object:
            if 1 < counts.max() <= LONGEST + 1:  # prompts are longer
                failed.append(int(counts.max()))
                raise error
            return model.forward(sequences, counts, *more)

    long = [replace(each, tokens=each.tokens * 8) for each in prompts(engine, 3)]
    engine.drafts.mode = "off"
    answers = engine.generate(long)
    engine.drafts.mode = "on"
    monkeypatch.setattr(engine.runner, "model", Failing())
    assert engine.generate(likely(long, answers)) == answers
    assert failed


@pytest.mark.grid
@pytest.mark.parametrize("piece", [0, 64])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int4"])
def test_a_preempted_answer_goes_on_with_the_same_bits(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, precision: str, piece: int
) -> None:
    engine = Engine(ours(folders("llama-biases"), precision))
    if piece:
        engine.read_in_pieces(piece, 2**24)
    engine.drafts.mode = "off"
    requests = [replace(each, limit=90) for each in prompts(engine, 7)]
    requests.append(Request(7, (9,), limit=90))
    answers, steps = engine.generate(requests), scored(engine, requests)
    forward, full, longest = engine.runner.forward, [0], [0]
    put_back = engine._scheduler.put_back

    def tight(runs: Sequence[TokenRun]) -> object:
        """The memory is full every 23rd time, twice in a row, so that leaving out drafts is not enough."""
        full[0] += 1
        if full[0] % 23 in (4, 5) and len(runs) > 1:
            raise CacheFull("keys and values")
        return forward(runs)

    def counted(answer: Answer) -> None:
        longest[0] = max(longest[0], len(answer.tokens))
        put_back(answer)

    monkeypatch.setattr(engine.runner, "forward", tight)
    monkeypatch.setattr(engine._scheduler, "put_back", counted)
    for mode in ("off", "on"):
        engine.drafts.mode = mode
        assert engine.generate(likely(requests, answers)) == answers
        assert scored(engine, likely(requests, answers)) == steps
    assert longest[0] > 32  # tokens of an answer that were read again


def test_what_the_last_answers_of_an_adapter_repeat_is_drafted(folders: Folders) -> None:
    engine = Engine(ours(folders("qwen2-untied"), "bf16"))
    for name in ("one", "other"):
        engine.load(name, lora_of(folders("qwen2-untied"), 1, 4))
    request = replace(prompts(engine, 1)[0], adapter="one", sampling=Sampling(temperature=1.0))  # repeats nothing
    engine.drafts.mode, engine.drafts.remembers = "on", True
    wanted = engine.generate([request])
    before = engine.drafts.counts.accepted
    assert engine.generate([replace(request, adapter="other")]) == wanted
    assert engine.drafts.counts.accepted < before + LIMIT // 4
    before = engine.drafts.counts.accepted
    assert engine.generate([request]) == wanted
    assert engine.drafts.counts.accepted > before + LIMIT // 2


def test_a_server_drafts_no_answers_of_others(folders: Folders) -> None:
    opener = Opener()
    opener.serve(str(folders("qwen2-untied")))
    (base,) = opener.bases
    base.lm.drafts.mode = "on"
    request = replace(prompts(base.lm, 1)[0], sampling=Sampling(temperature=1.0))  # repeats nothing
    accepted = []
    for _ in range(2):
        before = base.lm.drafts.counts.accepted
        base.lm.generate([request])
        accepted.append(base.lm.drafts.counts.accepted - before)
    assert accepted[0] == accepted[1]


def test_auto_leaves_random_text_alone(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Times, "measure", lambda self, tokens, seconds: None)  # others use the machine too
    engine = Engine(ours(folders("gpt2"), "bf16"))
    generator = np.random.default_rng(12)
    requests = [
        Request(i, ids(generator, 200, 20), limit=100, sampling=Sampling(temperature=5.0, seed=i)) for i in range(4)
    ]
    assert engine.drafts.mode == "auto"
    engine.generate(requests)
    assert engine.drafts.counts.tokens > 300
    assert engine.drafts.counts.drafted < 30
