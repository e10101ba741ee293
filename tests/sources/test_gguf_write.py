"""The GGUF writer: the `gguf` package reads it back, and its quantisers give the same bytes."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from refusals import assert_refused

from riyaz.sources import gguf, gguf_write
from riyaz.sources.gguf_write import PlannedTensor

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_1", "Q4_0")
# largest error of a weight, in parts of the largest of its block, and root mean square error of normal weights
K_KINDS = {"Q4_K": (0.11, 0.075), "Q6_K": (0.06, 0.02)}


def samples(seed: int = 0) -> np.ndarray:
    """(N, 96) of ordinary, tiny, huge, half-way, constant and zero weights."""
    generator = np.random.default_rng(seed)
    plain = generator.standard_normal((64, 96)).astype(np.float32)
    halves = (generator.integers(-9, 9, (16, 96)) / 2).astype(np.float32)
    edges = [np.zeros((1, 96)), np.full((1, 96), 0.7), np.full((1, 96), -1.0)]
    return np.concatenate([plain, plain * 1e-6, plain * 3e3, halves, *edges]).astype(np.float32)


def round_trip(kind: str, values: np.ndarray) -> np.ndarray:
    """The values that a reader gets back."""
    return gguf_write.decode(kind, gguf_write.encode(kind, values))


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_has_the_bytes_of_the_gguf_package(kind):
    values = samples()
    theirs = quantize(values, GGMLQuantizationType[kind])
    assert gguf_write.encode(kind, values).tobytes() == theirs.view(np.uint8).tobytes()
    np.testing.assert_array_equal(round_trip(kind, values), dequantize(theirs, GGMLQuantizationType[kind]))


def k_samples(kind: str, seed: int = 0) -> np.ndarray:
    """(N, 512) of normal, tiny, huge, one-sided, sparse, constant and zero weights."""
    generator = np.random.default_rng(seed)
    plain = generator.standard_normal((64, 512)).astype(np.float32)
    sparse = np.where(generator.random((16, 512)) < 0.02, generator.standard_normal((16, 512)) * 9, 0)
    edges = [np.zeros((1, 512)), np.full((1, 512), 0.7), np.full((1, 512), -1.0)]
    return np.concatenate([plain, plain * 1e-3, plain * 1e3, np.abs(plain), sparse, *edges]).astype(np.float32)


@pytest.mark.parametrize("kind", K_KINDS)
def test_k_blocks_are_read_by_the_gguf_package_and_lie_near_the_weights(kind):
    values = k_samples(kind)
    largest, usual = K_KINDS[kind]
    written = gguf_write.encode(kind, values)
    theirs = dequantize(written, GGMLQuantizationType[kind])
    np.testing.assert_array_equal(round_trip(kind, values), theirs)
    error = (
        np.abs(theirs - values).reshape(-1, 256) / np.maximum(np.abs(values).reshape(-1, 256).max(1), 1e-30)[:, None]
    )
    assert error.max() < largest
    assert np.sqrt(((theirs - values)[:64] ** 2).mean()) < usual
    assert not theirs[-3].any(), "zeros stay zeros"


def test_a_k_block_tries_scales_and_is_better_than_the_first_one():
    values = k_samples("Q4_K")[:64]
    blocks = values.reshape(-1, 8, 32)
    low, high = np.minimum(blocks.min(2), 0)[..., None], blocks.max(2)[..., None]
    step = (high - low) / 15
    plain = np.rint((blocks - low) / step) * step + low
    ours = round_trip("Q4_K", values).reshape(blocks.shape)
    assert ((ours - blocks) ** 2).mean() < 0.93 * ((plain - blocks) ** 2).mean(), "although its scales have six bits"


@pytest.mark.parametrize(("kind", "narrow"), [("Q4_K", "Q5_0"), ("Q6_K", "Q8_0"), ("Q8_0", "F16"), ("Q4_0", "F16")])
def test_rows_that_are_no_whole_number_of_blocks_get_the_type_that_llama_cpp_gives_them(kind, narrow):
    assert gguf_write.dtype_for(kind, (3, 512)) == kind
    assert gguf_write.dtype_for(kind, (3, 576 if "K" in kind else 40)) == narrow
    assert gguf_write.dtype_for(kind, (3, 40)) == "F16" and gguf_write.dtype_for(kind, (512,)) == "F32"


METADATA = {
    "general.architecture": "llama", "a.count": 7, "a.large": 2**40, "a.below": -3, "a.ratio": 0.5, "a.on": True,
    "a.words": ["é", "", "b c"], "a.ids": [3, 1, 2], "a.scores": [0.5, -1.0],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_read_what_was_written(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(gguf_write, "CHUNK", 96 * 5)  # several pieces of rows, the last one smaller
    matrix, vector, odd = samples()[:64], np.arange(7, dtype=np.float32), samples()[:3, :40]
    shapes = {"m": matrix, "v": vector, "o": odd}
    planned = [
        PlannedTensor(name, array.shape, gguf_write.dtype_for(kind, array.shape), lambda array=array: array)
        for name, array in shapes.items()
    ]
    path = tmp_path / "x.gguf"
    gguf_write.write(path, METADATA, planned)
    reader = GGUFReader(str(path))
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields == METADATA
    ours = gguf.read(path)
    assert ours.metadata == METADATA
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types == {
        "m": kind,
        "v": "F32",
        "o": {"Q8_0": "F16", "Q5_0": "F16", "Q4_1": "F16", "Q4_0": "F16"}.get(kind, kind),
    }
    for tensor in reader.tensors:
        wanted = dequantize(tensor.data, tensor.tensor_type)
        found = ours.array(tensor.name)
        if types[tensor.name] == "BF16":
            found = (found.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(found, wanted.reshape(found.shape))
        np.testing.assert_array_equal(found, round_trip(types[tensor.name], shapes[tensor.name]))


def test_a_full_disk_leaves_nothing(tmp_path):
    def failing() -> np.ndarray:
        raise OSError(28, "No space left on device")

    with assert_refused("the disk is full"):
        gguf_write.write(tmp_path / "x.gguf", METADATA, [PlannedTensor("t", (4, 32), "F32", failing)])
    assert not list(tmp_path.iterdir())
