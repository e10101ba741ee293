"""Forks behind an input: what whole prompts give, in any parts, and with little memory."""

from pathlib import Path

import numpy as np
import pytest

from riyaz import hardware
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.forks import Fork, Stem
from riyaz.engine.native import formats
from riyaz.engine.native.load import load_runner
from riyaz.engine.parts import finished
from riyaz.engine.runner import CacheFull
from riyaz.families import describe
from riyaz.sources import open_source

FORKS = 40
NEAR = 1e-3  # nats in float32: products of few and of many rows


def tokens(generator: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(generator.integers(3, 250, count).tolist())


@pytest.fixture(scope="module")
def stem() -> Stem:
    generator = np.random.default_rng(5)
    given = tokens(generator, 75)
    forks = []
    for number in range(FORKS):
        shared = tokens(generator, 3)
        endings = {shared[: generator.integers(0, 4)] + tokens(generator, generator.integers(1, 9)) for _ in range(6)}
        endings |= {shared, shared[:1]}  # beginnings of others
        forks.append(Fork(75 - number % 3, tokens(generator, 1 + number), tuple(endings)))
    forks.append(Fork(75, (7,), (tokens(generator, 300), tokens(generator, 1))))  # longer than a run
    return Stem(Request(0, given), tuple(forks))


def opened(folder: Path, precision: str = "fp32") -> Engine:
    return Engine(load_runner(open_source(folder), precision))


def test_forks_score_as_whole_prompts(model_folder: Path, stem: Stem) -> None:
    engine = opened(model_folder)
    (result,) = finished(engine.forking([stem]))
    for fork, scores in zip(stem.forks, result.scores):
        prompt = Request(0, stem.request.tokens[: fork.shared] + fork.tokens)
        wanted = engine.logprobs([prompt] * len(fork.endings), fork.endings)
        assert scores == pytest.approx([each.sum() for each in wanted], abs=NEAR)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_a_fork_has_the_same_bits_alone_and_in_any_parts(model_folder: Path, stem: Stem, precision: str) -> None:
    engine = opened(model_folder, precision)
    (result,) = finished(engine.forking([stem]))
    for piece in (64, 200):
        engine.read_in_pieces(piece)
        (again,) = finished(engine.forking([stem]))
        assert [each.tobytes() for each in again.scores] == [each.tobytes() for each in result.scores]
        for place in (0, 11, FORKS):
            (alone,) = finished(engine.forking([Stem(stem.request, (stem.forks[place],))]))
            assert alone.scores[0].tobytes() == result.scores[place].tobytes()


def test_little_memory_gives_the_same_bits_and_none_is_left_open(
    model_folder: Path, stem: Stem, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(model_folder, "bf16")
    (result,) = finished(engine.forking([stem]))
    assert engine.runner.model.cache_bytes == 0
    weights, page = int(formats.packed_bytes(describe(open_source(model_folder)), "bf16")), engine.runner.bytes_of(32)

    def with_pages(count: int) -> Engine:
        free = 2 * count * page + weights
        monkeypatch.setattr(hardware, "memory", lambda: hardware.Memory(free, free))
        return opened(model_folder, "bf16")

    small = with_pages(20)
    (again,) = finished(small.forking([stem]))
    assert [each.tobytes() for each in again.scores] == [each.tobytes() for each in result.scores]
    tiny = with_pages(2)
    with pytest.raises(CacheFull):
        finished(tiny.forking([stem]))
    assert small.runner.model.cache_bytes == tiny.runner.model.cache_bytes == 0


def test_running_answers_go_on_between_parts(model_folder: Path, stem: Stem) -> None:
    engine = opened(model_folder)
    engine.read_in_pieces(64)
    assert sum(1 for _ in engine.forking([stem])) > 10
