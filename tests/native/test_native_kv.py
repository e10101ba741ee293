"""Keys and values in codes of 8 bits: near those in float32, the same in every batch, and asked for by `--kv`."""

from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from native_models import KINDS, Folders, apart, folders_in, ids, ours, read, read_all
from refusals import assert_refused
from tiny_comparison import command

from riyaz.config import Kv
from riyaz.engine import Request
from riyaz.engine.native import plan
from riyaz.engine.opening import open_engine
from riyaz.engine.runner import TokenRun, Whole
from riyaz.errors import RiyazError
from riyaz.sources import open_source

# Nats by which a log-probability may differ from that with keys and values in float32, all else in float32: at most,
# and in the mean. bfloat16 keeps 8 bits of each number, a code 7 and a sign of the largest of its group.
NEAR, MEAN = 0.2, 0.01
FLIPPED = 0.02  # where tokens stand in other slots: sums in another order can change a code by one
LENGTHS = (1, 33, 100, 350)  # beyond the windows of the tiny models
LAST = Whole(np.array([0]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders_in(tmp_path_factory)


def rows_of(lengths: tuple[int, ...], vocabulary: int) -> list[tuple[int, ...]]:
    generator = np.random.default_rng(0)
    return [ids(generator, length, vocabulary) for length in lengths]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_near_floats_in_every_family(folders: Folders, kind: str) -> None:
    exact, coded = ours(folders(kind)), ours(folders(kind), kv="int8")
    rows = rows_of(LENGTHS, exact.vocab_size)
    wanted, found = read_all(exact, rows), read_all(coded, rows)
    assert 0 < apart(found, wanted) <= NEAR
    assert np.mean(np.abs(np.concatenate(found) - np.concatenate(wanted))) <= MEAN


def test_codes_take_about_half_the_memory(folders: Folders) -> None:
    folder = folders("llama-biases")
    bf16, int8 = (ours(folder, "bf16", kv).bytes_of(1000) for kv in ("bf16", "int8"))
    assert int8 == bf16 * (32 * 32 + 128) / (2 * 32 * 32)  # a scale in 32 numbers: the tiny heads have no more


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int4"])
def test_a_batch_changes_no_answer(folders: Folders, precision: str) -> None:
    runner = ours(folders("mistral"), precision, "int8")
    rows = rows_of((1, 20, 31, 70, 200), runner.vocab_size)
    for together, row in zip(read_all(runner, rows), rows):
        assert np.array_equal(together, read(runner, row))


def test_forks_and_what_is_taken_back(folders: Folders) -> None:
    runner = ours(folders("gemma3"), "fp32", "int8")
    row, other = rows_of((90, 40), runner.vocab_size)
    whole, parent = read(runner, row), runner.open()
    runner.forward([TokenRun(parent, row[:70])])
    child = runner.fork(parent, 45)
    found = runner.forward([TokenRun(child, row[45:], Whole(np.arange(45))), TokenRun(parent, other)])[0]
    assert apart(found, whole[45:]) <= FLIPPED
    held = runner.model.cache_bytes
    for sequence in (parent, child):
        with pytest.raises(ValueError, match="not in the vocabulary"):
            runner.forward([TokenRun(sequence, (5, -1))])
    after = runner.open(prefix=parent)
    assert runner.model.cache_bytes == held
    again = read(runner, (*row[:70], *other, 5))[-1]
    assert apart(runner.forward([TokenRun(after, (5,), LAST)])[0][0], again) <= FLIPPED
    for sequence in (parent, child, after):
        runner.close(sequence)
    assert runner.model.cache_bytes == 0


def test_the_engine_opens_with_them_and_torch_refuses(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = open_source(folders("llama-biases")), [Request(0, (5, 6, 7) * 20, limit=5)]
    types: tuple[Kv, ...] = ("auto", "bf16", "int8")
    own, bf16, int8 = (open_engine(source, "bf16", kv=kv).logprobs(asked, [(9,) * 30])[0] for kv in types)
    assert np.array_equal(own, bf16) and 0 < apart(int8, bf16) <= NEAR
    with pytest.raises(RiyazError, match="kv: unknown type of keys and values 'int4'; choose one of auto, bf16, int8"):
        open_engine(source, kv="int4")  # type: ignore[arg-type]
    monkeypatch.setenv("RIYAZ_ENGINE", "torch")
    with assert_refused("RIYAZ_ENGINE: torch does not hold keys and values in int8; take auto, or the C++ engine"):
        open_engine(source, kv="int8")


def test_commands_take_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model", seed=1)
    seen: list[str] = []
    settings = plan.settings
    monkeypatch.setattr(plan, "settings", lambda config, fp32, kv: seen.append(kv) or settings(config, fp32, kv))
    told = command("generate", folder, "the card", "--max-tokens", 2, "--kv", "int8")
    assert told.status == 0 and seen == ["int8"], told.err
    refused = command("generate", folder, "the card", "--kv", "int4")
    assert refused.status == 2 and "int4" in refused.line
