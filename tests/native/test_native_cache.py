"""The limit of keys and values in memory: kept prefixes make room, the least recently used first, and what does not fit
is one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from native_models import ids, ours, soft_of, write

from riyaz import hardware
from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.engine.native import formats
from riyaz.engine.runner import TokenRun
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.sources import open_source

END = 2
PREFIX = 70  # tokens of a prefix: 3 pages
Opened = Callable[[int], Engine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write("llama-biases", tmp_path_factory.mktemp("model"))


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """An engine whose cache holds so many pages, and never holds more: that is checked after every forward."""

    def engine(pages: int) -> Engine:
        page = 2 * 2 * 2 * 32 * 32 * 2  # K and V, layers, heads, slots, padded head size, bfloat16
        free = 2 * pages * page + int(formats.packed_bytes(describe(open_source(folder)), "bf16"))
        monkeypatch.setattr(hardware, "memory", lambda: hardware.Memory(free, free))
        runner = ours(folder, "bf16")
        assert runner.cache_limit == pages * page == runner.bytes_of(32 * pages)
        forward = runner.forward

        def checked(runs: list[TokenRun]) -> list:
            try:
                return forward(runs)
            finally:
                assert runner.model.cache_bytes <= runner.cache_limit

        monkeypatch.setattr(runner, "forward", checked)
        return Engine(runner)

    return engine


def prefixes(count: int, length: int = PREFIX) -> list[tuple[int, ...]]:
    generator = np.random.default_rng(count)
    return [ids(generator, length, 512) for _ in range(count)]


def reads(engine: Engine) -> list[int]:
    """Lengths of the runs from now on that want nothing: of prefixes that are read."""
    lengths: list[int] = []
    forward = engine.runner.forward

    def counted(runs: list[TokenRun]) -> list:
        results = forward(runs)
        lengths.extend(len(run.tokens) for run in runs if run.want is None)
        return results

    engine.runner.forward = counted
    return lengths


def test_the_least_recently_used_prefix_makes_room(opened: Opened) -> None:
    engine, (a, b, c) = opened(8), prefixes(3)
    ask = lambda prefix: engine.generate([Request(0, (5, 6), prefix, limit=3)])[0]  # noqa: E731
    read, first = reads(engine), [ask(a), ask(b)]  # 2 × 3 pages, and one of an answer
    ask(a)
    assert read == [PREFIX] * 2
    ask(c)  # b makes room, since a was used after it
    assert read == [PREFIX] * 3
    assert ask(a) == first[0] and read == [PREFIX] * 3
    assert ask(b) == first[1] and read == [PREFIX] * 4  # read again, with the same tokens


def test_a_prefix_in_use_stays(opened: Opened) -> None:
    engine, (a, b, c) = opened(9), prefixes(3)
    running = engine.stream(Request(0, (5, 6), a, limit=20))  # 3 + 1 pages
    next(running)
    read = reads(engine)
    engine.generate([Request(1, (5,), b, limit=2)])
    engine.generate([Request(2, (5,), c, limit=2)])  # b makes room although a was used before it
    engine.generate([Request(3, (7,), a, limit=2)])
    assert read == [PREFIX] * 2
    with pytest.raises(RiyazError, match=r"keys and values need .* MB, the limit is .* MB; shorten"):
        engine.logprobs([Request(4, (5,), prefixes(1, 200)[0])], [(9,)])  # 7 pages beside 4
    assert len(list(running)) == 19


@pytest.mark.parametrize("pages", [9, 12, 40])
def test_answers_are_those_of_a_cache_that_holds_all(opened: Opened, pages: int) -> None:
    """Free and sampled answers, log-probabilities and closed sets, after soft prompts and many prefixes."""
    generator, found = np.random.default_rng(0), []
    kept = [*prefixes(4), (), ()]
    trie = Trie([(*ids(generator, 1 + i % 4, 512), END) for i in range(30)])
    rows = [Request(i, ids(generator, 1 + 7 * i % 40, 512), kept[i % 6], ("soft", None)[i % 2], 12,
                    Sampling(temperature=0.8 * (i % 3 == 0), seed=i), constraint=trie) for i in range(24)]  # fmt: skip
    for held in (pages, 4000):
        engine = opened(held)
        engine.load("soft", soft_of(Path(engine.runner.family.source.files[0].path).parent, 1, 9))
        found.append([])
        for _ in range(2):
            found[-1] += engine.generate(rows)
            found[-1] += [row.tolist() for row in engine.logprobs(rows, [(5, 6, 7)] * len(rows))]
            found[-1] += engine.choose(rows).tolist()
            found[-1] += engine.best(rows, np.zeros(len(trie.leaf)))
    assert found[0] == found[1]


def test_what_cannot_fit_is_one_line_at_once(opened: Opened) -> None:
    engine, (prefix,) = opened(6), prefixes(1)
    kept = engine.generate([Request(0, (5, 6), prefix, limit=3)])
    wanted = r"prompt and answer of 250 tokens need 0\.\d MB of keys and values, and 0\.\d MB of memory may hold them; "
    for ask in (engine.add, lambda request: engine.generate([request]), lambda request: next(engine.stream(request))):
        with pytest.raises(RiyazError, match=wanted) as caught:
            ask(Request(1, (5,) * 100, limit=150))
        assert "\n" not in str(caught.value)
    with pytest.raises(RiyazError, match="keys and values need"):
        engine.logprobs([Request(2, (5,) * 250)], [(9,)])
    assert engine.generate([Request(0, (5, 6), prefix, limit=3)]) == kept


def test_requests_wait_for_room(opened: Opened) -> None:
    engine, rows = opened(5), prefixes(8, 40)
    for row in rows:
        engine.add(Request(0, row, limit=20))  # 2 pages each
    assert len(engine.step()) == 2
    while steps := engine.step():
        assert len(steps) <= 2


def test_a_beginning_of_less_than_no_tokens_is_refused(opened: Opened) -> None:
    runner = opened(4).runner
    sequence = runner.model.open(-1)
    runner.forward([TokenRun(sequence, prefixes(1)[0], None)])
    for begin in (runner.model.fork, runner.model.open_after):
        with pytest.raises(RuntimeError, match="no such tokens"):
            begin(sequence, -1)
