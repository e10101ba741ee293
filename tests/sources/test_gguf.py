"""The GGUF reader beside the `gguf` package, and against files that lie."""

import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from grids import examples, some
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from tiny_llama import write_gguf

from riyaz.errors import RiyazError
from riyaz.sources import gguf, pull
from riyaz.sources.gguf_blocks import DEQUANTISE, LAYOUTS, dequantise

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")  # that the package quantises to


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, payload):
    """A metadata pair with its payload as bytes."""
    return text(key) + struct.pack("<I", kind) + payload


def tensor(name="t", sizes=(4,), kind=0, offset=0, n_dimensions=None):
    """A directory entry; sizes innermost first."""
    count = len(sizes) if n_dimensions is None else n_dimensions
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", count, *sizes, kind, offset)


def file_bytes(pairs=(), tensors=(), data=b"", version=3, n_pairs=None, n_tensors=None, alignment=32):
    """A GGUF file out of its parts; the counts may lie."""
    counts = (len(tensors) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data


PAIRS = (
    pair("general.architecture", 8, text("llama")),
    pair("a.u8", 0, b"\xff"),
    pair("a.i8", 1, b"\xff"),
    pair("a.u16", 2, struct.pack("<H", 65535)),
    pair("a.i16", 3, struct.pack("<h", -2)),
    pair("a.u32", 4, struct.pack("<I", 2**32 - 1)),
    pair("a.i32", 5, struct.pack("<i", -3)),
    pair("a.f32", 6, struct.pack("<f", 0.5)),
    pair("a.bool", 7, b"\1"),
    pair("a.u64", 10, struct.pack("<Q", 2**64 - 1)),
    pair("a.i64", 11, struct.pack("<q", -4)),
    pair("a.f64", 12, struct.pack("<d", 0.1)),
    pair("a.words", 9, struct.pack("<IQ", 8, 2) + text("zwei") + text("wörter")),
    pair("a.numbers", 9, struct.pack("<IQ3i", 5, 3, 1, -1, 7)),
    pair("a.flags", 9, struct.pack("<IQ", 7, 2) + b"\1\0"),
)
HONEST = file_bytes(
    PAIRS,
    [
        tensor("f", (4, 2)),
        tensor("q", (32, 2), 8, 32),
        tensor("p", (32,), 3, 128),
        tensor("b", (2,), 30, 160),
    ],
    np.random.default_rng(0).bytes(164),
)


def test_equals_the_gguf_package_in_metadata_and_values(tmp_path):
    for dtype in TYPES:
        path = write_gguf(tmp_path / f"{dtype}.gguf", dtype=dtype)
        ours, oracle = gguf.read(path), GGUFReader(str(path))
        fields = {key: value for key, value in oracle.fields.items() if not key.startswith("GGUF.")}
        assert ours.metadata == {key: value.contents() for key, value in fields.items()}
        assert list(ours.tensors) == [item.name for item in oracle.tensors]
        for item in oracle.tensors:
            info = ours.tensors[item.name]
            assert (info.dtype, info.offset, info.nbytes) == (
                item.tensor_type.name,
                item.data_offset,
                item.n_bytes,
            )
            assert info.shape == tuple(reversed(item.shape.tolist()))
            check_values(ours.array(item.name), item)


def check_values(array, item):
    """The same bits as the oracle's dequantisation, in the dtype the reader promises."""
    expected = dequantize(item.data, item.tensor_type)
    if item.tensor_type.name == "BF16":
        assert array.dtype == np.uint16
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif item.tensor_type.name == "F16":
        assert array.dtype == np.float16
        array = array.astype(np.float32)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected)


def random_blocks(dtype, count):
    """Blocks of random bytes whose scales are finite: subnormal and negative ones too."""
    layout = gguf.LAYOUTS[dtype]
    blocks = np.frombuffer(np.random.default_rng(1).bytes(count * layout.itemsize), layout).copy()
    for part in layout.names:
        if layout[part] == np.dtype("<f2"):
            blocks[part] = np.nan_to_num(blocks[part], nan=-6e-8, posinf=65504, neginf=-65504)
    return blocks


@pytest.mark.parametrize("dtype", DEQUANTISE)
def test_dequantises_every_bit_pattern_as_the_oracle(tmp_path, dtype):
    kind = GGMLQuantizationType[dtype]
    blocks = random_blocks(dtype, 9 * 64 * 8)  # over several chunks, the last one not full
    weights = GGML_QUANT_SIZES[kind][0]
    data = file_bytes((), [tensor("t", (weights * 9, 512), int(kind))], blocks.tobytes())
    (tmp_path / "t.gguf").write_bytes(data)
    expected = dequantize(blocks.view(np.uint8).reshape(512, -1), kind)
    np.testing.assert_array_equal(gguf.read(tmp_path / "t.gguf").array("t"), expected)


def test_every_format_has_the_oracles_number_and_sizes():
    for number, (name, weights, layout) in gguf.TYPES.items():
        if number in gguf.FORKS_TYPES:
            continue
        kind = GGMLQuantizationType(number)
        assert (kind.name, *GGML_QUANT_SIZES[kind]) == (name, weights, layout.itemsize)
    for number, name in gguf.OTHER_TYPES.items():
        assert GGMLQuantizationType(number).name == name and number not in gguf.TYPES


@pytest.mark.parametrize("dtype", [*DEQUANTISE, "I2_S"])
def test_infinite_scales_give_no_warning(dtype):
    if dtype == "I2_S":
        blocks = np.zeros(5, LAYOUTS[dtype])
        blocks["q"][0], blocks["q"][-1][:4] = 0x1B, np.frombuffer(np.float32(np.inf).tobytes(), np.uint8)
    else:
        blocks = random_blocks(dtype, 4)
        blocks["d"] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dequantise(dtype, blocks).dtype == np.float32


def test_an_array_of_strings_is_decoded_when_it_is_asked_for(tmp_path):
    damaged = pair("a.words", 9, struct.pack("<IQ", 8, 3) + text("eins") + text(b"\xff") + text("drei"))
    (tmp_path / "t.gguf").write_bytes(file_bytes([damaged]))
    words = gguf.read(tmp_path / "t.gguf").metadata["a.words"]
    assert len(words) == 3
    with assert_refused("metadata 'a.words' is not UTF-8", "t.gguf", "download it again"):
        words.tolist()
    (tmp_path / "t.gguf").write_bytes(HONEST)
    words = gguf.read(tmp_path / "t.gguf").metadata["a.words"]
    assert len(words) == 2 and list(words) == words.tolist() and words != ["zwei"] and words != "zwei"


def test_strings_take_little_memory_before_they_are_asked_for(tmp_path):
    count = 50_000
    words = struct.pack("<IQ", 8, count) + text("word") * count
    (tmp_path / "t.gguf").write_bytes(file_bytes([pair("a.words", 9, words)]))
    tracemalloc.start()
    try:
        metadata = gguf.read(tmp_path / "t.gguf").metadata
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 6 * count  # bytes; each has a place of 4, in an array that has room for more
    assert metadata["a.words"].tolist() == ["word"] * count


def test_reads_every_metadata_type(tmp_path):
    (tmp_path / "t.gguf").write_bytes(HONEST)
    file = gguf.read(tmp_path / "t.gguf")
    assert file.metadata["a.u64"] == 2**64 - 1 and file.metadata["a.i64"] == -4
    assert file.metadata["a.words"] == ["zwei", "wörter"] and file.metadata["a.flags"] == [True, False]
    oracle = GGUFReader(str(tmp_path / "t.gguf"))
    assert file.metadata == {key: oracle.fields[key].contents() for key in file.metadata}


def test_version_2_and_other_alignments(tmp_path):
    path = tmp_path / "t.gguf"
    values = np.arange(8, dtype=np.float32)
    for alignment in (1, 8, 64):
        pairs = [pair("general.alignment", 4, struct.pack("<I", alignment))]
        data = file_bytes(pairs, [tensor("t", (4, 2))], values.tobytes(), version=2, alignment=alignment)
        path.write_bytes(data)
        np.testing.assert_array_equal(gguf.read(path).array("t"), values.reshape(2, 4))


def alignment(payload, kind=4):
    return file_bytes([pair("general.alignment", kind, payload)], [tensor()], bytes(16))


def with_tensors(*tensors, data=bytes(64)):
    return file_bytes((), tensors, data)


def array_of(kind, count, rest=b""):
    return file_bytes([pair("k", 9, struct.pack("<IQ", kind, count) + rest)])


LIES = {
    "empty": (b"", "the file is empty"),
    "another format": (b"PK\3\4 a zip file", "not a GGUF file"),
    "magic only": (b"GGUF", "the version"),
    "version 1": (file_bytes(version=1), "version 1"),
    "version 4": (file_bytes(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor count": (file_bytes(n_tensors=2**63), "tensors, the limit"),
    "pair count": (file_bytes(n_pairs=2**40), "metadata pairs, the limit"),
    "pair count past the end": (file_bytes(n_pairs=3), "the type of metadata ''"),
    "huge key": (file_bytes([struct.pack("<Q", 2**63)]), "metadata key 0"),
    "huge string": (file_bytes([pair("k", 8, struct.pack("<Q", 2**64 - 1))]), "'k'"),
    "long string": (file_bytes([pair("k", 8, struct.pack("<Q", 1000) + b"short")]), "'k' needs 1000 bytes"),
    "string over the limit": (file_bytes([pair("k", 8, struct.pack("<Q", 17 * 2**20))]), "the limit is"),
    "not UTF-8": (file_bytes([pair(b"\xff\xfe", 8, text("v"))]), "not UTF-8"),
    "unknown type": (file_bytes([pair("k", 13, b"")]), "unknown type 13"),
    "unknown element type": (array_of(99, 1), "unknown element type 99"),
    "array count": (array_of(4, 2**61), "elements, the limit"),
    "array past the end": (array_of(4, 2**20), "'k' needs 4194304 bytes"),
    "words past the end": (array_of(8, 2**20), "'k'"),
    "array of arrays": (array_of(9, 1, struct.pack("<IQ", 9, 1) * 100_000), "array of arrays"),
    "duplicate key": (file_bytes([PAIRS[0], PAIRS[0]]), "'general.architecture' appears twice"),
    "duplicate tensor": (with_tensors(tensor("t"), tensor("t", offset=32)), "'t' appears twice"),
    "alignment 0": (alignment(struct.pack("<I", 0)), "general.alignment is 0"),
    "alignment 3": (alignment(struct.pack("<I", 3)), "general.alignment is 3"),
    "alignment 2^31": (alignment(struct.pack("<I", 2**31)), "general.alignment"),
    "alignment -8": (alignment(struct.pack("<i", -8), 5), "general.alignment is -8"),
    "alignment text": (alignment(text("32"), 8), "general.alignment"),
    "alignment true": (alignment(b"\1", 7), "general.alignment is True"),
    "alignment list": (alignment(struct.pack("<IQI", 4, 1, 32), 9), "general.alignment is [32]"),
    "no dimensions": (with_tensors(tensor(sizes=())), "0 dimensions"),
    "5 dimensions": (with_tensors(tensor(sizes=(1,) * 5)), "5 dimensions"),
    "many dimensions": (with_tensors(tensor(n_dimensions=2**32 - 1)), "4294967295 dimensions"),
    "size 0": (with_tensors(tensor(sizes=(4, 0))), "shape [4, 0]"),
    "size 2^31": (with_tensors(tensor(sizes=(2**31,))), "shape [2147483648]"),
    "product overflow": (with_tensors(tensor(sizes=(2**30, 2**30, 2**4))), "past the end"),
    "product is 0 in 64 bits": (with_tensors(tensor(sizes=(2**30, 2**30, 2**2))), "past the end"),
    "half a block": (with_tensors(tensor(sizes=(48,), kind=8)), "rows of 48 weights"),
    "type without a reader": (with_tensors(tensor(sizes=(256,), kind=23)), "type IQ4_XS"),
    "type unknown": (with_tensors(tensor(kind=99)), "type 99"),
    "offset unaligned": (with_tensors(tensor(offset=4)), "not a multiple of the alignment"),
    "offset past the end": (with_tensors(tensor(offset=64)), "past the end"),
    "offset wraps": (with_tensors(tensor(offset=2**64 - 32)), "past the end"),
    "last byte missing": (with_tensors(tensor(), data=bytes(15)), "past the end"),
    "overlap": (with_tensors(tensor("a", (16,)), tensor("b", (16,), offset=32), data=bytes(128)), "overlap"),
    "long tensor name": (with_tensors(tensor("n" * 257)), "the name of tensor 0"),
}


@pytest.mark.parametrize("case", LIES)
def test_lies_are_one_line_naming_file_and_field(tmp_path, case):
    data, expected = LIES[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(RiyazError) as caught:
        gguf.read(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line and line.isprintable()
    assert expected in line or (expected == "past the end" and "the file has" in line), line


def test_all_before_the_weights_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "t.gguf").write_bytes(HONEST)
    monkeypatch.setattr(gguf, "MAX_HEADER", 500)
    with pytest.raises(RiyazError, match=r"ends at byte .* the header must end by byte 500"):
        gguf.read(tmp_path / "t.gguf")


def test_a_file_cut_anywhere_is_an_error(tmp_path):
    path = tmp_path / "model.gguf"
    for length in range(len(HONEST)):
        path.write_bytes(HONEST[:length])
        with pytest.raises(RiyazError):
            gguf.read(path)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "nothing.gguf", tmp_path):
        with pytest.raises(RiyazError, match="cannot be read"):
            gguf.read(path)


def test_terminal_codes_in_names_do_not_reach_the_terminal(tmp_path):
    path = tmp_path / "t.gguf"
    path.write_bytes(file_bytes([pair("\x1b[31m\n\u202e" * 50, 13, b"")]))
    with pytest.raises(RiyazError) as caught:
        gguf.read(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


NUMBERS = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63, 2**64 - 1, 2**64 - 32])
EDITS = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, len(HONEST) - 1), st.integers(0, 255)),
    st.tuples(st.just("number"), st.integers(0, len(HONEST) - 8), NUMBERS),
    st.tuples(st.just("cut"), st.integers(0, len(HONEST)), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, len(HONEST)), st.integers(1, 64)),
)


@settings(max_examples=examples(300), deadline=None, derandomize=True, database=None)
@given(edits=st.lists(EDITS, min_size=1, max_size=4))
def test_mutated_files_give_only_riyaz_errors(tmp_path_factory, edits):
    data = bytearray(HONEST)
    for kind, at, value in edits:
        if kind == "byte" and at < len(data):
            data[at] = value
        elif kind == "number":
            data[at : at + 8] = struct.pack("<Q", value)
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = bytes(value)
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(data)
    try:
        file = gguf.read(path)
    except RiyazError as error:
        assert "\n" not in str(error)
        return
    for name, info in file.tensors.items():
        assert file.array(name).shape == info.shape and info.offset + info.nbytes <= len(data)


@pytest.mark.slow
def test_the_real_file_equals_the_oracle():
    path = pull("smollm2-135m").path
    file = gguf.read(path)
    assert len(file.tensors) == 272 and file.metadata["general.architecture"] == "llama"
    tensors = GGUFReader(str(path)).tensors
    assert {item.name: item.n_bytes for item in tensors} == {name: info.nbytes for name, info in file.tensors.items()}
    for item in some(tensors, 30, "tensors of the real file"):
        check_values(file.array(item.name), item)
