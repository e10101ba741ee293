"""Our safetensors reader and writer beside the `safetensors` package, and against files that lie."""

import errno
import json
import os
import resource
import struct

import numpy as np
import pytest
import safetensors.numpy
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tiny_llama import bfloat16

from riyaz.errors import RiyazError
from riyaz.sources import safetensors as ours

ARRAYS = {
    "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
    "weight": np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7),
    "half": np.arange(3, dtype=np.float16),
    "scalar": np.array(2.5, np.float32),
    "none": np.zeros((0, 4), np.float32),
    "ids": np.arange(-4, 4, dtype=np.int64),
    "bytes": np.arange(5, dtype=np.uint8),
    "flags": np.array([True, False, True]),
    "strided": np.arange(12, dtype=np.int32).reshape(3, 4).T,
}


def test_the_package_reads_what_we_write(tmp_path):
    path = tmp_path / "m.safetensors"
    ours.write(path, ARRAYS, {"format": "pt"})
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_we_read_what_the_package_writes(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(a) for name, a in ARRAYS.items() if a.ndim}, path, {"a": "b"}
    )
    file = ours.read(path)
    assert file.metadata == {"a": "b"} and len(file.tensors) == len(ARRAYS) - 1
    for name in file.tensors:
        assert file.array(name).dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(file.array(name), ARRAYS[name])


def test_bfloat16_keeps_its_bits_and_torch_agrees(tmp_path):
    import safetensors.torch
    import torch

    path = tmp_path / "m.safetensors"
    bits = bfloat16(ARRAYS["weight"])
    ours.write(path, {"b": ("BF16", bits), "f": ARRAYS["weight"]})
    np.testing.assert_array_equal(ours.read(path).array("b"), bits)
    loaded = safetensors.torch.load_file(path)["b"]
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded, torch.from_numpy(ARRAYS["weight"]).bfloat16())


def test_every_tensor_lies_at_a_multiple_of_its_item_size(tmp_path):
    path = tmp_path / "m.safetensors"
    ours.write(path, ARRAYS)
    for info in ours.read(path).tensors.values():
        assert info.offset % np.dtype(ours.DTYPES[info.dtype]).itemsize == 0


def test_a_round_trip_gives_equal_bytes(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    ours.write(first, ARRAYS, {"k": "v"})
    file = ours.read(first)
    ours.write(second, {name: file.array(name) for name in reversed(file.tensors)}, file.metadata)
    assert first.read_bytes() == second.read_bytes()


def test_no_space_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    ours.write(path, {"a": ARRAYS["weight"]})
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RiyazError, match="the disk is full"):
        ours.write(path, {"a": np.zeros(10, np.float32)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.safetensors"]


def test_a_write_that_really_fails_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RiyazError, match="cannot be written"):
            ours.write(tmp_path / "m.safetensors", {"a": np.zeros(10**6, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def file_bytes(header, data=b"", length=None):
    """A file out of a header (an object or its raw bytes) and data; the length may lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32", **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


ONE = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
TWICE = b"{" + ONE + b"," + ONE + b"}"
LIES = {
    "empty": (b"", "the file is empty"),
    "short": (b"\1\0\0", "the file has 3"),
    "header past the end": (file_bytes({}, length=100), "the header is declared 100 bytes"),
    "header length 2^64 - 1": (file_bytes({}, length=2**64 - 1), "the header is declared"),
    "header over the limit": (struct.pack("<Q", 17 * 2**20) + bytes(18 * 2**20), "the limit is 16777216"),
    "not JSON": (file_bytes(b"{'a':1}"), "not JSON"),
    "not UTF-8": (file_bytes(b'{"\xff":1}'), "not JSON"),
    "deep": (file_bytes(b'{"a":' + b"[" * 100_000), "not JSON"),
    "huge number": (file_bytes(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
    "a list": (file_bytes([1]), "not a JSON object"),
    "a text": (file_bytes(b'"x"'), "not a JSON object"),
    "duplicate name": (file_bytes(TWICE, b"\0"), "'a' appears twice"),
    "metadata not texts": (file_bytes({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata a list": (file_bytes({"__metadata__": []}), "__metadata__"),
    "too many tensors": (file_bytes({str(i): 0 for i in range(50_001)}), "the limit is 50000"),
    "entry a number": (file_bytes({"a": 1}), "'a' must have"),
    "entry incomplete": (file_bytes({"a": {"dtype": "F32", "shape": [1]}}), "'a' must have"),
    "entry with more": (file_bytes({"a": entry(strides=[1])}, bytes(8)), "'a' must have"),
    "type unknown": (file_bytes({"a": entry(dtype="Q4_1")}, bytes(8)), "unknown type 'Q4_1'"),
    "type a list": (file_bytes({"a": entry(dtype=[])}, bytes(8)), "unknown type"),
    "shape negative": (file_bytes({"a": entry((-2,))}, bytes(8)), "shape"),
    "shape fraction": (file_bytes({"a": entry((2.0,))}, bytes(8)), "shape"),
    "shape true": (file_bytes({"a": entry((True,))}, bytes(4)), "shape"),
    "shape a text": (file_bytes({"a": {**entry(), "shape": "22"}}, bytes(8)), "shape"),
    "shape overflow": (file_bytes({"a": entry((2**32, 2**32), (0, 0))}), "shape"),
    "shape of nothing": (file_bytes({"a": entry((0, 2**60, 2**60), (0, 0))}), "shape"),
    "many dimensions": (file_bytes({"a": entry((1,) * 65, (0, 4))}, bytes(4)), "shape"),
    "offsets negative": (file_bytes({"a": entry((2,), (-8, 0))}, bytes(8)), "data_offsets"),
    "offsets backwards": (file_bytes({"a": entry((2,), (8, 0))}, bytes(8)), "span -8"),
    "offsets of 2^64": (file_bytes({"a": entry((2,), (2**64, 2**64 + 8))}, bytes(8)), "data_offsets"),
    "offsets of a thousand digits": (file_bytes({"a": entry((2,), (0, 10**1000))}, bytes(8)), "data_offsets"),
    "offsets three": (file_bytes({"a": entry((2,), (0, 8, 8))}, bytes(8)), "data_offsets"),
    "offsets null": (file_bytes({"a": {**entry(), "data_offsets": None}}, bytes(8)), "data_offsets"),
    "offsets too short": (file_bytes({"a": entry((3,))}, bytes(8)), "needs 12 bytes"),
    "past the end": (file_bytes({"a": entry()}, bytes(7)), "the file has"),
    "far past the end": (file_bytes({"a": entry((2,), (2**63, 2**63 + 8))}, bytes(8)), "gap"),
    "overlap": (file_bytes({"a": entry(), "b": entry((2,), (4, 12))}, bytes(12)), "'b' overlaps"),
    "shared": (file_bytes({"a": entry(), "b": entry()}, bytes(8)), "'b' overlaps"),
    "gap": (file_bytes({"a": entry(), "b": entry((2,), (12, 20))}, bytes(20)), "'b' leaves a gap"),
    "hidden bytes at the end": (file_bytes({"a": entry()}, bytes(9)), "the tensors end at"),
}


@pytest.mark.parametrize("case", LIES)
def test_lies_are_one_line_naming_file_and_field(tmp_path, case):
    data, expected = LIES[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(RiyazError) as caught:
        ours.read(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and expected in line and line.isprintable() and len(line) < 500, line


HONEST = {
    "__metadata__": {"format": "pt"},
    "a": entry((2, 2), (0, 16)),
    "b": entry((3,), (16, 22), "BF16"),
    "c": entry((0, 3), (22, 22), "I8"),
    "d": entry((2,), (22, 24), "F8_E4M3"),
}


def test_a_file_cut_anywhere_is_an_error(tmp_path):
    data = file_bytes(HONEST, bytes(24))
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    assert ours.read(path).array("c").shape == (0, 3)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(RiyazError):
            ours.read(path)


def read_all(path, data):
    """Reads every value of a mutated file; only RiyazError may come out."""
    path.write_bytes(data)
    try:
        file = ours.read(path)
    except RiyazError as error:
        assert "\n" not in str(error)
        return
    for name, info in file.tensors.items():
        assert file.array(name).shape == info.shape and info.offset + info.nbytes <= len(data)


WHOLE = file_bytes(HONEST, bytes(24))
EDIT = st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))


@settings(max_examples=examples(300), deadline=None, derandomize=True, database=None)
@given(edits=st.lists(EDIT, min_size=1, max_size=4), cut=st.integers(0, len(WHOLE)) | st.none())
def test_mutated_bytes_give_only_riyaz_errors(tmp_path_factory, edits, cut):
    data = bytearray(WHOLE)
    for at, value in edits:
        data[at] = value
    read_all(tmp_path_factory.getbasetemp() / "mutated.safetensors", bytes(data[:cut]))


NUMBER = st.integers(-2, 30) | st.integers(-(2**70), 2**70) | st.floats() | st.booleans()
VALUES = st.lists(NUMBER, max_size=3) | st.sampled_from(sorted(ours.DTYPES)) | NUMBER
VALUES |= st.sampled_from([None, {}, [[]], "x", [None], ["1"], {"a": 1}])


@settings(max_examples=examples(300), deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(list(HONEST)),
    key=st.sampled_from(["dtype", "shape", "data_offsets", "format", "more"]),
    value=VALUES,
)
def test_mutated_headers_give_only_riyaz_errors(tmp_path_factory, name, key, value):
    header = {**HONEST, name: {**HONEST[name], key: value}}
    read_all(tmp_path_factory.getbasetemp() / "mutated.safetensors", file_bytes(header, bytes(24)))
