"""Keys and values of many requests: prompts that begin alike are read once, where the memory ends the latest request
waits, and what fails is one request."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native_models import ids, ours, soft_of, write

from riyaz.engine import Request, Sampling, prefixes
from riyaz.engine.engine import Engine, Step, finished
from riyaz.engine.runner import CacheFull, TokenRun
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError

END = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write("llama-biases", tmp_path_factory.mktemp("model"))


def opened(folder: Path, pages: int = 10_000, keep: int = 1000, piece: int = 64, precision: str = "bf16") -> Engine:
    """An engine as a server has it, for so many pages of 32 tokens, of which prompts may keep `keep`."""
    runner = ours(folder, precision)
    engine = Engine(runner)
    engine.load("soft", soft_of(Path(runner.family.source.files[0].path).parent, 1, 9))
    engine.read_in_pieces(piece, keep * runner.bytes_of(32))
    forward = runner.forward

    def limited(runs: list[TokenRun]) -> list:  # as the C++ cache does at the limit that it was made with
        needed = runner.model.cache_bytes + sum(runner.bytes_of(len(run.tokens) + 31) for run in runs)
        if needed > runner.cache_limit:
            raise CacheFull("keys and values need more")
        return forward(runs)

    runner.cache_limit = pages * runner.bytes_of(32)
    runner.forward = limited  # type: ignore[method-assign]
    return engine


def run(engine: Engine, requests: list[Request]) -> tuple[list[list[int]], list[Step]]:
    """The tokens of each answer, and the last step of each."""
    places = {engine.add(request): place for place, request in enumerate(requests)}
    answers: list[list[int]] = [[] for _ in requests]
    ends: dict[int, Step] = {}
    while len(ends) < len(requests):
        for step in engine.step():
            answers[places[step.ticket]] += [] if step.token is None else [step.token]
            if step.done:
                ends[places[step.ticket]] = step
    return answers, [ends[place] for place in range(len(requests))]


def read(engine: Engine) -> list[int]:
    """Lengths of the runs from now on."""
    lengths: list[int] = []
    forward = engine.runner.forward

    def counted(runs: list[TokenRun]) -> list:
        lengths.extend(len(run.tokens) for run in runs)
        return forward(runs)

    engine.runner.forward = counted  # type: ignore[method-assign]
    return lengths


def turns(seed: int, adapter: str | None, prefix: tuple[int, ...]) -> Iterator[Request]:
    """The prompts of a conversation: each begins with the one before it."""
    generator = np.random.default_rng(seed)
    tokens: tuple[int, ...] = ()
    for turn, length in enumerate((70, 45, 100, 33)):
        tokens = (*tokens, *ids(generator, length, 512))
        drawn = Sampling(temperature=0.9 * (turn % 2), seed=turn)
        yield Request(turn, tokens, prefix, adapter, 12, drawn, top=3)


@pytest.mark.parametrize("prefix", [(), tuple(range(3, 60))], ids=["", "prefix"])
@pytest.mark.parametrize("adapter", [None, "soft"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_next_turn_reads_what_is_new_and_changes_no_bit(
    folder: Path, adapter: str | None, prefix: tuple, precision: str
) -> None:
    engine, cached = opened(folder, precision=precision), []
    lengths = read(engine)
    for request in turns(1, adapter, prefix):
        fresh = opened(folder, keep=0, precision=precision)
        wanted = list(map(vars, scored(fresh, request)))
        assert list(map(vars, scored(engine, request))) == wanted, "tokens and log-probabilities"
        cached.append(run(engine, [replace(request, limit=1)])[1][0].cached - len(prefix))
    # a prompt again: whole pages, and at least 32 tokens are read
    assert cached == [32, 64, 160, 192]
    others = list(turns(2, adapter, prefix))[-1]
    assert run(engine, [others])[1][0].cached == len(prefix), "another conversation shares the prefix alone"
    assert max(lengths) <= 64


def scored(engine: Engine, request: Request) -> list:
    engine.add(request)
    found = []
    while steps := [step for _ in range(10) for step in engine.step()]:
        found += [step.scored for step in steps]
    assert len(found) > 3
    return found


def test_prompts_that_begin_alike_share_what_is_alike(folder: Path) -> None:
    engine, generator = opened(folder), np.random.default_rng(3)
    system = ids(generator, 100, 512)
    asked = [Request(0, (*system, *ids(generator, 40, 512)), limit=5) for _ in range(3)]
    assert [run(engine, [request])[1][0].cached for request in asked] == [0, 96, 96]
    again = [Request(0, asked[0].tokens[:count], limit=2) for count in (63, 64, 95, 96, 140)]
    assert [run(engine, [request])[1][0].cached for request in again] == [0, 32, 32, 64, 96]
    engine.unload("soft")
    assert len(engine._prefixes._begun) == 3


@pytest.mark.parametrize("prefix", [(), tuple(range(3, 60))], ids=["", "prefix"])
@pytest.mark.parametrize("adapter", [None, "soft"])
def test_a_kept_prompt_is_its_owners_alone_also_within_one_batch(
    folder: Path, adapter: str | None, prefix: tuple
) -> None:
    engine = opened(folder)
    request = Request(0, ids(np.random.default_rng(5), 140, 512), prefix, adapter, limit=6)
    wanted = run(opened(folder, keep=0), [request])[0][0]
    cached = []
    for owner in (1, 2, 1, 2, 0):
        answers, (end,) = run(engine, [replace(request, owner=owner)])
        assert answers == [wanted]
        cached.append(end.cached - len(prefix) * (owner != 1 or bool(cached)))
    assert cached == [0, 0, 96, 96, 0], "the text of the served prefix is everyone's, the prompt its owner's"
    both = [replace(request, owner=owner) for owner in (3, 4, 1)]
    answers, ends = run(engine, both)
    assert answers == [wanted] * 3 and [end.cached - len(prefix) for end in ends] == [0, 0, 96]
    again, _ = run(engine, [replace(request, tokens=request.tokens[:70], owner=5)] * 2)
    assert again == [run(opened(folder, keep=0), [replace(request, tokens=request.tokens[:70])])[0][0]] * 2


def test_kept_prompts_are_bounded_and_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MOST", 4)
    engine, generator = opened(folder, keep=9), np.random.default_rng(4)
    rows = [ids(generator, 70, 512) for _ in range(9)]
    for row in rows:
        run(engine, [Request(0, row, limit=2)])
        assert engine.runner.model.cache_bytes <= engine.runner.bytes_of(32 * 9)
    assert len(engine._prefixes._begun) == 4
    assert run(engine, [Request(0, (*rows[-1], 5), limit=2)])[1][0].cached == 32
    engine.runner.cache_limit = engine.runner.bytes_of(32 * 8)
    long = ids(generator, 180, 512)
    assert run(engine, [Request(0, long, limit=2)])[0] == run(opened(folder), [Request(0, long, limit=2)])[0]
    assert len(engine._prefixes._begun) <= 2, "the others made room"
    run(engine, [Request(0, ids(generator, 320, 512)[:200], limit=2)])
    for begun in list(engine._prefixes._begun.values()):
        engine.runner.close(begun)
    assert engine.runner.model.cache_bytes == 0, "nothing else is held"


@pytest.mark.parametrize("pages", [40, 14])
def test_long_answers_start_together_and_the_latest_waits_where_the_memory_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr("riyaz.engine.scheduler.AHEAD", 32)
    generator = np.random.default_rng(5)
    asked = [
        Request(i, ids(generator, 20 + i, 512), limit=200, sampling=Sampling(0.8, seed=i), top=1, echo=1)
        for i in range(4)
    ]
    wanted = [run(opened(folder, keep=0), [request]) for request in asked]
    engine = opened(folder, pages=pages, keep=0)
    tickets = [engine.add(request) for request in asked]
    together, prompts = 0, dict.fromkeys(tickets, 0)
    answers: dict[int, list] = {ticket: [] for ticket in tickets}
    for _ in range(3000):
        for step in engine.step():
            answers[step.ticket].append(step.token)
            prompts[step.ticket] += len(step.prompt)
        together = max(together, len(engine.running))
        if not engine.running and not engine._scheduler.waiting:
            break
    assert together == 4, "answers that may need seven pages each start at two"
    assert [len(answers[ticket]) for ticket in tickets] == [200] * 4
    assert [prompts[ticket] for ticket in tickets] == [19 + i for i in range(4)], "each prompt is scored once"
    assert answers[tickets[0]] == wanted[0][0][0], "the first never waits"
    assert engine.runner.model.cache_bytes == 0


def test_an_answer_without_end_has_what_fits_the_memory(folder: Path) -> None:
    engine = opened(folder, pages=6)
    request = Request(0, (5,) * 40, adapter=None)
    assert engine.room(request) == 6 * 32 - 40
    assert opened(folder).room(request) == engine.context - 40
    answers, ends = run(engine, [replace(request, limit=engine.room(request) - 31)])
    assert len(answers[0]) == 6 * 32 - 71 and ends[0].error is None


def test_a_prefix_that_finds_no_room_fails_its_own_request(folder: Path) -> None:
    engine, generator = opened(folder, pages=8), np.random.default_rng(6)
    plain = engine.add(Request(0, ids(generator, 40, 512), limit=50))
    engine.step()
    late = engine.add(Request(0, (7, 8), ids(generator, 180, 512), limit=2))
    found: dict[int, list[Step]] = {plain: [], late: []}
    for _ in range(200):
        for step in engine.step():
            found[step.ticket].append(step)
    assert len(found[plain]) == 49 and all(step.error is None for step in found[plain]), "it goes on"
    assert len(found[late]) == 2 and found[late][-1].error is None, "it waits until there is room"
    ticket = engine.add(Request(0, (7, 8), ids(generator, 100, 512), limit=2))
    engine.runner.cache_limit = engine.runner.bytes_of(32 * 2)  # less than was there when it was added
    (step,) = [step for _ in range(5) for step in engine.step()]
    assert step.ticket == ticket and isinstance(step.error, CacheFull) and not engine.running
    with pytest.raises(CacheFull):
        engine.generate([Request(0, (5,) * 90, limit=2)])


class Broken:
    """A grammar that can go no further, and where an answer stands in it."""

    def start(self) -> "Broken":
        return self

    def fits(self, token: int) -> bool:
        return False

    def allowed(self) -> np.ndarray:
        raise ValueError("no token fits")

    def accept(self, token: int) -> None: ...


def test_what_fails_alone_ends_alone(folder: Path) -> None:
    engine, generator = opened(folder), np.random.default_rng(7)
    rows = [Request(0, ids(generator, 20, 512), limit=5) for _ in range(3)]
    rows[1] = replace(rows[1], grammar=Broken())
    answers, ends = run(engine, rows)
    assert [len(answer) for answer in answers] == [5, 0, 5] and isinstance(ends[1].error, ValueError)
    forward = engine.runner.forward

    def overflows(runs: list[TokenRun]) -> list:
        if any(5 in run.tokens[:1] for run in runs):
            raise RiyazError("the model's scores of the next token are not finite")
        return forward(runs)

    engine.runner.forward = overflows  # type: ignore[method-assign]
    rows[1] = Request(0, (5, 6, 7), limit=5)
    answers, ends = run(engine, rows)
    assert [len(answer) for answer in answers] == [5, 0, 5] and "not finite" in str(ends[1].error)
    with pytest.raises(Exception, match="not finite"):
        next(engine.stream(rows[1]))


def test_a_search_pauses_between_pieces_and_finds_the_same(folder: Path) -> None:
    generator = np.random.default_rng(8)
    trie = Trie([(*ids(generator, 1 + i % 4, 512), END) for i in range(40)])
    rows = [
        Request(i, ids(generator, 150, 512), tuple(range(3, 100)), ("soft", None)[i % 2], constraint=trie)
        for i in range(6)
    ]
    offsets = np.zeros((1, 40))
    whole, engine = opened(folder, piece=0, keep=0), opened(folder)
    lengths, sums, pauses, forward = read(engine), [], 0, engine.runner.forward
    engine.runner.forward = lambda runs: sums.append(sum(len(run.tokens) for run in runs)) or forward(runs)  # type: ignore
    beside = engine.add(Request(9, ids(generator, 20, 512), limit=200))
    steps = engine.finding(rows, offsets)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
        pauses += 1
        engine.step()
    assert found == whole.best_each(rows, offsets) and pauses > 20 and max(lengths) <= max(sums) <= 64
    assert engine.choose(rows).tolist() == whole.choose(rows).tolist()
    assert finished(engine.choosing(rows)).shape == (6, 40)
    engine.cancel(beside)
    steps = engine.finding(rows, offsets)
    next(steps)
    steps.close()
    engine._prefixes.drop("soft")
    held = engine.runner.model.cache_bytes
    assert held == engine.runner.bytes_of(97), "the prefix alone"
