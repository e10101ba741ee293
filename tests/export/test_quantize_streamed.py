"""`riyaz quantize` in little memory: the same bytes and figures as from whole matrices on one core."""

import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama

from riyaz import hardware
from riyaz.drift import block_requests
from riyaz.engine.runner import TokenRun
from riyaz.export import quantize as module
from riyaz.export.quantize import Small, compared, general_text_blocks, quantize, read_text, write
from riyaz.predictor import Predictor, open_target
from riyaz.sources import gguf_groups, gguf_quantise, gguf_write, open_source

FORMS = (Small("int8"), Small("int4"), Small("int4", 64, False))
PIECE = 2**12  # numbers: an eighth of the embedding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


def in_small_pieces(patch: pytest.MonkeyPatch, threads: int) -> None:
    patch.setattr(hardware, "threads", lambda: threads)
    patch.setattr(module, "PIECE", PIECE)
    patch.setattr(gguf_write, "CHUNK", PIECE // 2)
    patch.setattr(gguf_quantise, "CHUNK", PIECE // 4)


@pytest.mark.parametrize("stored", ["hf", "F16"])
def test_the_same_bytes_as_from_whole_matrices_on_one_core(
    stored: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder if stored == "hf" else tiny_llama.write_gguf(tmp_path / "model.gguf", dtype=stored)
    for form in FORMS:
        with monkeypatch.context() as patch:
            patch.setattr(hardware, "threads", lambda: 1)
            patch.setattr(gguf_groups, "CHUNK", 2**11)
            write(open_source(model), tmp_path / "whole.gguf", form)
        with monkeypatch.context() as patch:
            in_small_pieces(patch, threads=3)
            patch.setattr(gguf_groups, "CHUNK", 2**11)
            write(open_source(model), tmp_path / "pieces.gguf", form)
        assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_no_more_of_a_large_matrix_is_in_memory_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = open_source(tiny_llama.write_gguf(tmp_path / "halves.gguf", dtype="F16"))
    in_small_pieces(monkeypatch, threads=1)
    sizes, encode = {}, gguf_write.encode

    def measured(dtype: str, values: np.ndarray) -> np.ndarray:
        base = values if values.base is None else values.base
        sizes.setdefault((dtype, values.shape[-1]), []).append(base.size)
        return encode(dtype, values)

    monkeypatch.setattr(gguf_write, "encode", measured)
    write(halves, tmp_path / "model.gguf", Small("int4"))
    embedding = sizes["Q8_0", 64]
    assert len(embedding) >= 512 * 64 // PIECE and max(embedding) <= PIECE


def test_threads_give_the_chunks_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    for threads in (1, 2, 5):
        monkeypatch.setattr(hardware, "threads", lambda count=threads: count)
        assert np.array_equal(gguf_quantise.in_chunks(lambda part: part * 2, rows, 3), rows * 2)


def test_the_comparison_reads_little_at_a_time_and_finds_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "general_text", lambda path: tiny_llama.CORPUS * 4)
    write(open_source(folder), tmp_path / "small.gguf", Small("int4"))
    before, after = open_target(folder, None, "bf16"), open_target(tmp_path / "small.gguf")
    assert before.has_model and after.has_model
    sums, count = np.zeros(3), 0
    for request, answer in zip(*block_requests(before, tiny_llama.CORPUS * 4)):
        (p,) = before.lm.distributions([request], [answer])
        (q,) = after.lm.distributions([replace(request, adapter=after.adapter)], [answer])
        said = np.arange(len(answer)), answer
        sums += -p[said].sum(dtype=np.float64), -q[said].sum(dtype=np.float64), (np.exp(p) * (p - q)).sum()
        count += len(answer)
    most, forward = [], before.lm.runner.forward

    def watched(runs: list[TokenRun]) -> list:
        results = forward(runs)
        most.extend(len(result) for result in results)
        return results

    monkeypatch.setattr(before.lm.runner, "forward", watched)
    blocks = general_text_blocks(open_source(folder))
    nats, small, divergence, tokens = compared(read_text(before, blocks, tmp_path / "before"), after)
    assert tokens == count == sum(most) and max(most) <= module.READ < count
    assert math.isclose(nats, sums[0] / count, rel_tol=1e-6) and math.isclose(small, sums[1] / count, rel_tol=1e-6)
    assert math.isclose(divergence, sums[2] / count, rel_tol=1e-3) and divergence > 0


def test_models_are_never_open_beside_each_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "general_text", lambda path: tiny_llama.CORPUS * 4)
    opened: list[weakref.ref[Any]] = []

    def watched(*arguments: Any) -> Predictor:
        assert not any(reference() for reference in opened)
        predictor = open_target(*arguments)
        assert predictor.has_model
        opened.append(weakref.ref(predictor.lm))
        return predictor

    monkeypatch.setattr(module, "open_target", watched)
    small = quantize(str(folder), Small("int8"), tmp_path / "small")
    assert len(opened) == 2 and small.tokens > 100
    assert [path.name for path in tmp_path.iterdir()] == ["small"], "nothing of the comparison is left"
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["model.gguf"]
