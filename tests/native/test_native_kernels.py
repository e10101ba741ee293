"""Packing and products of the C++ engine against numpy, on every instruction set that this machine has."""

import numpy as np
import pytest
from grids import some
from native_matrices import (
    EXACT,
    FORMATS,
    GROUPED,
    QUANTISED,
    bfloat16,
    empty,
    empty_for,
    from_blocks,
    packed,
    product,
    random_blocks,
    random_matrix,
    share_scales,
    unpacked,
    weights_of,
)
from tiny_llama import bfloat16 as bits_of

from riyaz import native
from riyaz.families.ternary import GGUF_TYPES
from riyaz.sources.gguf_blocks import LAYOUTS

ISAS = native.isas() if native.available() else ()
TILES = tuple(isa for isa in ISAS if isa == "amx")  # the sets with products of many tokens in tiles
CODES = tuple(isa for isa in ISAS if isa not in ("amx", "avx2"))  # and those with such products in 8 bits
INTEGERS = ("int8", "int4k", *GROUPED)
FUSED = tuple(isa for isa in ISAS if isa != "scalar")  # their multiply-adds round once
HALF_STEP = 0.501  # of an int8 code: the largest error of rounding, and the scale's own rounding to half precision
ROW_STEP = 0.504  # the same of int8row, whose scale is rounded up to bfloat16: 0.5 + 2^-8
NEAR = 2e-6  # of the sum of the sizes of all terms: float32 sums
CODE = 0.8  # of a step of 1/127 of the largest weight of 64: the largest error of a weight encoded anew
BF16 = 2**-8  # a weight rounded to bfloat16 by a product in tiles, relative
MANY, FEW = 40, 12  # tokens, and the numbers of them that are tried of a grid
UNPACKED = (96, 97, 99)  # tokens for which kernels with AVX-512 unpack integer weights
SHAPES = [
    (1, 32),
    (15, 100),
    (16, 256),
    (37, 31),
    (17, 160),
    (130, 96),
]  # rows and columns that fill no block, and that do
each_isa = pytest.mark.parametrize("isa", ISAS)
each_form = pytest.mark.parametrize("form", FORMATS)


def inputs(seed: int, tokens: int, cols: int) -> np.ndarray:
    """Inputs (tokens, cols) of very different sizes, some of them zero."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(tokens, cols)) * 10.0 ** generator.uniform(-2, 2, (tokens, 1))
    x[:, : cols // 3][generator.random((tokens, cols // 3)) < 0.5] = 0
    return x.astype(np.float32)


def shapes(form: str) -> list[tuple[int, int]]:
    return [(1, 256), (17, 512), (37, 256)] if form == "int4k" else SHAPES


def group_of(form: str) -> int:
    """Columns with one scale by the name of an int4 form, as in "int4-64s"; 32 for other formats."""
    return int(form.partition("-")[2].rstrip("s") or 32)


def times(isa: str, matrix, x: np.ndarray, many: int = 0) -> np.ndarray:
    """`many`: columns of a group in products with many tokens, 0 for the products with few."""
    return native.extension().product(isa, matrix, np.ascontiguousarray(x, np.float32), many=many)


# packing


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("rows", [1, 37, 300])
def test_blocks_are_packed_without_loss(dtype: str, rows: int) -> None:
    blocks = random_blocks(dtype, rows, 512, seed=rows)
    assert np.array_equal(unpacked(from_blocks(dtype, blocks), rows, 512), weights_of(dtype, blocks))


@pytest.mark.parametrize("dtype", [dtype for dtype in QUANTISED if dtype not in (*EXACT, *GGUF_TYPES)])
def test_other_types_become_int8_within_half_a_step(dtype: str) -> None:
    weights = weights_of(dtype, random_blocks(dtype, 37, 512))
    assert native.extension().format_of(dtype) == "int8"
    error = np.abs(unpacked(packed("int8", weights), 37, 512) - weights).reshape(37, -1, 32).max(2)
    assert (error <= HALF_STEP * np.abs(weights).reshape(37, -1, 32).max(2) / 127).all()


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_floats_are_rounded_to_each_format(rows: int, cols: int) -> None:
    weights = np.random.default_rng(1).normal(0, 0.2, (rows, cols)).astype(np.float32)
    found = {form: unpacked(packed(form, weights), rows, cols) for form in FORMATS if form != "int4k"}
    assert np.array_equal(found["fp32"], weights)
    assert np.array_equal(found["bf16"], bfloat16(weights))
    for begin in range(0, cols, 32):
        group = weights[:, begin : begin + 32]
        step = np.abs(group).max(1, keepdims=True) / 127
        assert (np.abs(found["int8"][:, begin : begin + 32] - group) <= HALF_STEP * step).all()
    step = np.abs(weights).max(1, keepdims=True) / 127
    assert (np.abs(found["int8row"] - weights) <= ROW_STEP * step).all()
    for form in GROUPED:
        size = group_of(form)
        for begin in range(0, cols, size):
            group = weights[:, begin : begin + size]
            largest = np.abs(group).max(1, keepdims=True)
            step = (group.max(1, keepdims=True) - group.min(1, keepdims=True)) / 15
            # rounded to half precision: 2^-11 of scale and minimum; levels around 0 end at 7/8 of the largest
            error = (largest / 8 if form.endswith("s") else 0.5 * step) + 2**-10 * largest
            assert (np.abs(found[form][:, begin : begin + size] - group) <= error).all(), form


def test_bfloat16_is_packed_as_it_is_and_rounded_like_floats() -> None:
    weights = bfloat16(np.random.default_rng(2).normal(size=(37, 70)))
    for form in ("fp32", "bf16", "int8", "int8row", *GROUPED):
        matrix = empty(form, 37, 70)
        assert matrix.fill_bf16(0, bits_of(weights))
        assert np.array_equal(matrix.data, packed(form, weights).data)


@each_form
def test_parts_of_a_matrix_may_be_written_one_after_the_other_and_again(form: str) -> None:
    weights = np.random.default_rng(3).normal(size=(50, 256)).astype(np.float32)
    blocks = random_blocks("Q4_K", 50, 256)
    whole = from_blocks("Q4_K", blocks) if form == "int4k" else packed(form, weights)
    parts = empty(form, 50, 256)
    for values in (-weights, weights):
        for begin, end in ((0, 7), (7, 33), (33, 50)):
            if form == "int4k":
                assert parts.fill_gguf(begin, "Q4_K", blocks[begin:end], 256)
            else:
                assert parts.fill(begin, values[begin:end])
    assert np.array_equal(parts.data, whole.data)


def in_blocks(array: np.ndarray) -> np.ndarray:
    """(rows, ...) -> (blocks of 16, 16, ...), padded with zeros."""
    return np.pad(array, [(0, -len(array) % 16)] + [(0, 0)] * (array.ndim - 1)).reshape(-1, 16, *array.shape[1:])


def nibbles(codes: np.ndarray) -> np.ndarray:
    """Codes of 4 bits (..., 16 rows, 32) -> bytes (..., 4, 16, 4): columns 8 z + j low and 8 z + 4 + j high."""
    halves = codes.reshape(*codes.shape[:-1], 4, 2, 4)
    return np.moveaxis(halves[..., 0, :] | halves[..., 1, :] << 4, -2, -3)


def test_the_packed_bytes_are_those_of_layout_h() -> None:
    weights = np.random.default_rng(4).normal(size=(37, 96)).astype(np.float32)
    tiles = in_blocks(weights)  # (3, 16, 96)
    assert np.array_equal(packed("fp32", weights).data, tiles.transpose(0, 2, 1).reshape(-1).view(np.uint8))
    pairs = bits_of(tiles).reshape(3, 16, 48, 2).transpose(0, 2, 1, 3)
    assert np.array_equal(packed("bf16", weights).data, np.ascontiguousarray(pairs).reshape(-1).view(np.uint8))

    bits = (in_blocks(np.abs(weights).max(1) / np.float32(127)).view(np.uint32) + 0xFFFF) >> 16  # rounded up
    scales = (bits << 16).astype(np.uint32).view(np.float32)
    codes = np.rint(tiles / np.where(scales > 0, scales, 1)[..., None]).astype(np.int8).transpose(0, 2, 1)
    both = np.concatenate((codes.reshape(3, -1).view(np.uint8), bits.astype(np.uint16).view(np.uint8)), 1)
    assert np.array_equal(packed("int8row", weights).data, both.reshape(-1))

    blocks = random_blocks("Q8_0", 37, 96)
    each = in_blocks(blocks.reshape(-1).view(LAYOUTS["Q8_0"]).reshape(37, 3)).transpose(0, 2, 1)  # (3, groups, 16)
    codes = each["q"].view(np.uint8) ^ 0x80  # (3, groups, 16, 32)
    codes[2, :, 5:] = 0  # rows that are none
    upper = np.concatenate((nibbles(codes >> 4).reshape(3, 3, 256), halves_of(each["d"])), -1)
    lower = nibbles(codes & 15)  # of all blocks, behind the upper halves of all
    assert np.array_equal(from_blocks("Q8_0", blocks).data, np.concatenate((upper.reshape(-1), lower.reshape(-1))))


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("dtype", ["Q4_0", "Q4_1"])
def test_a_group_of_4_bits_holds_its_scale_once_and_the_last_of_a_row_may_be_shorter(dtype: str, group: int) -> None:
    rows, cols = 37, 352  # 2 groups of 128 and 96 columns
    blocks = share_scales(dtype, random_blocks(dtype, rows, cols), group)
    each = in_blocks(blocks.reshape(-1).view(LAYOUTS[dtype]).reshape(rows, cols // 32)).transpose(0, 2, 1)
    codes = nibbles(np.concatenate((each["q"] & 15, each["q"] >> 4), -1)).reshape(3, cols // 32, 256)
    parts = []
    for begin in range(0, cols // 32, group // 32):
        parts.append(codes[:, begin : begin + group // 32].reshape(3, -1))
        parts += [halves_of(each[name][:, begin]) for name in ("d", "m")[: 1 + (dtype == "Q4_1")]]
    matrix = from_blocks(dtype, blocks, group)
    assert np.array_equal(matrix.data, np.concatenate(parts, axis=1).reshape(-1))
    assert np.array_equal(unpacked(matrix, rows, cols), weights_of(dtype, blocks))


def halves_of(array: np.ndarray) -> np.ndarray:
    """(..., 16) half precision -> (..., 32) bytes."""
    return np.ascontiguousarray(array).view(np.uint8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["fp32", "bf16", "int8", "int8row", *GROUPED])
def test_a_number_that_is_none_is_reported_wherever_it_stands(form: str, value: float) -> None:
    for rows, place in ((3, (2, 69)), (200, (0, 0)), (200, (199, 33))):
        weights = np.ones((rows, 70), np.float32)
        weights[place] = value
        matrix = empty(form, rows, 70)
        assert not matrix.fill(0, weights) and not matrix.fill_bf16(0, bits_of(weights))


@pytest.mark.parametrize("dtype", EXACT)
def test_a_scale_that_is_none_is_reported(dtype: str) -> None:
    for part in {"d", "m"} & set(LAYOUTS[dtype].names):
        blocks = random_blocks(dtype, 20, 512)
        blocks.reshape(-1).view(LAYOUTS[dtype])[part][-1] = np.inf
        matrix = empty_for(dtype, 20, 512)
        assert not matrix.fill_gguf(0, dtype, blocks, 512)


def test_what_does_not_fit_a_matrix_is_refused() -> None:
    extension = native.extension()
    matrix = extension.Matrix("bf16", 20, 64)
    for first, values in (
        (1, np.ones((20, 64))),
        (0, np.ones((20, 65))),
        (0, np.ones((2, 31))),
        (-1, np.ones((2, 64))),
    ):
        with pytest.raises((ValueError, TypeError)):
            matrix.fill(first, values.astype(np.float32))
    q8, short = extension.Matrix("int8", 2, 64), np.zeros((2, 30), np.uint8)
    for dtype, blocks in (
        ("Q8_0", short),
        ("Q4_0", np.zeros((2, 36), np.uint8)),
        ("Q6_K", np.zeros((2, 420), np.uint8)),
    ):
        with pytest.raises(ValueError):
            q8.fill_gguf(0, dtype, blocks, 64)
    with pytest.raises(ValueError, match="no packing of Q4_1"):
        extension.Matrix("int4", 2, 64, minimum=False).fill_gguf(0, "Q4_1", np.zeros((2, 40), np.uint8), 64)
    for group in (0, 16, 48, 256):
        with pytest.raises(ValueError, match="groups have 32, 64 or 128 columns"):
            extension.Matrix("int4", 2, 64, group)
    for format_, form in (("int8", {"group": 64}), ("bf16", {"minimum": False})):
        with pytest.raises(ValueError, match="int4 and ternary weights alone have other groups"):
            extension.Matrix(format_, 2, 64, **form)
    for size in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="at least one row"):
            extension.Matrix("bf16", *size)
    with pytest.raises(ValueError, match="unknown format int3"):
        extension.Matrix("int3", 4, 4)
    with pytest.raises(ValueError, match="no such row"):
        matrix.row(20)


# products


@pytest.mark.grid(2)
@each_isa
@each_form
def test_products_are_those_of_numpy(isa: str, form: str) -> None:
    for rows, cols in shapes(form):
        matrix, x = random_matrix(form, rows, cols, seed=rows), inputs(cols, MANY, cols)
        wanted, sizes = product(unpacked(matrix, rows, cols), x, form)
        for tokens in some(range(1, MANY + 1), FEW, f"{isa} {form} {rows}"):
            found = times(isa, matrix, x[:tokens])
            assert (np.abs(found - wanted[:tokens]) <= NEAR * sizes[:tokens]).all(), (rows, cols, tokens)


@each_isa
@each_form
def test_a_token_s_product_does_not_depend_on_other_tokens(isa: str, form: str) -> None:
    rows, cols = shapes(form)[-1]
    matrix, x = random_matrix(form, rows, cols), inputs(1, 100, cols)
    together = times(isa, matrix, x)
    for tokens in (*range(1, MANY), *UNPACKED):
        begin = len(x) - tokens
        assert np.array_equal(times(isa, matrix, x[begin:]), together[begin:]), tokens
    damaged = x.copy()
    damaged[::2] = np.nan
    assert np.array_equal(times(isa, matrix, damaged)[1::2], together[1::2])


def whole_numbers(form: str, rows: int, cols: int):
    """A matrix of whole numbers with all codes, and the same as integers (rows, cols)."""
    generator = np.random.default_rng(5)
    dtype = {"int8": "Q8_0", "int4k": "Q4_K"}.get(form, "Q4_0" if form.endswith("s") else "Q4_1")
    blocks = random_blocks(dtype, rows, cols)
    each = blocks.reshape(-1).view(LAYOUTS[dtype])
    each["d"] = 1
    if "m" in each.dtype.names:
        each["m"] = generator.integers(-8, 9, len(each))
    if form == "int8":
        each["q"][::3] = generator.choice([-128, 127], each["q"][::3].shape)
    if form in GROUPED:
        blocks = share_scales(dtype, blocks, group_of(form))
    return from_blocks(dtype, blocks, group_of(form)), weights_of(dtype, blocks).astype(np.int64)


@pytest.mark.parametrize("form", ["int8", "int4k", *GROUPED])
def test_integer_sums_are_exact_and_the_same_on_every_instruction_set(form: str) -> None:
    rows, cols = 37, 512
    matrix, weights = whole_numbers(form, rows, cols)
    generator = np.random.default_rng(6)
    x = generator.integers(-127, 128, (11, cols))
    x[3:6] = generator.choice([-127, 127], (3, cols))  # the largest sums
    x.reshape(11, -1, 32)[:, :, 5] = 127  # so that 127 is each group's largest: codes are the numbers themselves
    wanted = x @ weights.T
    # of one group of Q4_K the scale has 6 bits: all sums stay below 2^24, where float32 has all whole numbers
    few = np.abs(x[:, None, :] * weights).sum(2) < 2**24 if form != "int4k" else np.ones_like(wanted, bool)
    if form == "int4k":
        x[:, 32:] = 0
        wanted = x @ weights.T
    assert few.mean() > 0.9
    for isa in ISAS:
        assert np.array_equal(times(isa, matrix, x)[few], wanted[few]), isa


@pytest.mark.parametrize("form", ["int8", "int4k", *GROUPED])
def test_products_of_integers_are_bit_for_bit_the_same_where_multiply_adds_are(form: str) -> None:
    rows, cols = shapes(form)[1]
    matrix, x = random_matrix(form, rows, cols), inputs(7, 13, cols)
    found = [times(isa, matrix, x) for isa in FUSED]
    assert all(np.array_equal(one, found[0]) for one in found)


@each_isa
@pytest.mark.parametrize("value", [np.nan, np.inf])
@each_form
def test_an_input_that_is_no_number_makes_no_number(form: str, value: float, isa: str) -> None:
    rows, cols = shapes(form)[1]
    matrix = random_matrix(form, rows, cols)
    for place in (0, 1, 17, 30, cols - 1):
        x = inputs(8, 3, cols)
        x[1, place] = value
        found = times(isa, matrix, x)
        assert not np.isfinite(found[1]).any() and np.isfinite(found[[0, 2]]).all(), place


@each_isa
@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-36, 1e-30])
def test_inputs_near_zero_stay_near_zero(size: float, isa: str) -> None:
    x = (np.random.default_rng(9).choice([-1, 0, 1], (3, 96)) * size).astype(np.float32)
    for form in ("int8", *GROUPED):
        assert np.abs(times(isa, random_matrix(form, 20, 96), x)).max() <= 96 * size


# products of many tokens


@pytest.mark.parametrize("isa", TILES)
@pytest.mark.parametrize("form", ["bf16", "int8", "int8row", "int4k", *GROUPED])
def test_a_product_in_tiles_unpacks_every_weight(isa: str, form: str) -> None:
    for rows, cols in shapes(form):
        matrix = random_matrix(form, rows, cols, seed=cols)
        weights = unpacked(matrix, rows, cols)
        found = times(isa, matrix, np.eye(cols), many=64).T
        if form in ("bf16", "int8row"):  # whose codes bfloat16 holds; their sums are scaled
            assert np.array_equal(found, weights)
            continue
        # int4 adds scale * code and a minimum, which may cancel: an error of both, in float32
        largest = np.abs(weights).max()
        assert (np.abs(found - weights) <= BF16 * np.abs(weights) + 2**-20 * largest).all(), (rows, cols)
        assert np.array_equal(found, bfloat16(found))


@pytest.mark.grid(2)
@pytest.mark.parametrize("isa", TILES)
@pytest.mark.parametrize("form", ["bf16", "int8", "int8row", "int4k", *GROUPED])
def test_products_in_tiles_are_those_of_numpy(isa: str, form: str) -> None:
    for rows, cols in shapes(form):
        matrix, x = random_matrix(form, rows, cols, seed=rows), inputs(cols, MANY, cols)
        weights = times(isa, matrix, np.eye(cols), many=64).T  # as the tiles have them
        wanted, sizes = product(weights, x, "bf16")
        together = times(isa, matrix, x, many=64)
        assert (np.abs(together - wanted) <= NEAR * sizes).all(), (rows, cols)
        for tokens in some(range(1, MANY + 1), FEW, f"{isa} {form} {rows}"):
            assert np.array_equal(times(isa, matrix, x[MANY - tokens :], many=64), together[MANY - tokens :])


@pytest.mark.parametrize("isa", CODES)
@pytest.mark.parametrize("form", INTEGERS)
@pytest.mark.parametrize("columns", [32, 64])
def test_a_product_by_codes_encodes_every_weight_within_a_step(isa: str, form: str, columns: int) -> None:
    for rows, cols in [(17, 512), (37, 256)] if form == "int4k" else [(15, 128), (37, 31), (130, 96), (33, 100)]:
        matrix = random_matrix(form, rows, cols, seed=cols)
        weights = unpacked(matrix, rows, cols)
        found = times(isa, matrix, np.eye(cols), many=columns).T
        if form == "int8" and columns == 32:
            assert (np.abs(found - weights) <= NEAR * np.abs(weights)).all(), (rows, cols)
            continue
        group = max(columns, group_of(form))  # columns that share the range of their codes
        largest = np.abs(np.pad(weights, ((0, 0), (0, -cols % group)))).reshape(rows, -1, group).max(2)
        step = np.repeat(largest, group, 1)[:, :cols] / 127
        assert (np.abs(found - weights) <= CODE * step).all(), (rows, cols)
        assert np.sqrt(np.mean(((found - weights) / step) ** 2)) < 0.35  # 0.289 is that of rounding


@pytest.mark.grid(2)
@pytest.mark.parametrize("isa", CODES)
@pytest.mark.parametrize("form", INTEGERS)
@pytest.mark.parametrize("columns", [32, 64])
def test_products_by_codes_are_those_of_numpy(isa: str, form: str, columns: int) -> None:
    for rows, cols in shapes(form):
        matrix, x = random_matrix(form, rows, cols, seed=rows), inputs(cols, MANY, cols)
        weights = times(isa, matrix, np.eye(cols), many=columns).T  # as they are encoded anew
        wanted, sizes = product(weights, x, f"codes of {columns}")
        together = times(isa, matrix, x, many=columns)
        assert (np.abs(together - wanted) <= NEAR * sizes).all(), (rows, cols)
        for tokens in some(range(1, MANY + 1), FEW, f"{isa} {form} {columns} {rows}"):
            assert np.array_equal(times(isa, matrix, x[MANY - tokens :], many=columns), together[MANY - tokens :])


@pytest.mark.parametrize("form", INTEGERS)
@pytest.mark.parametrize("columns", [32, 64])
def test_products_by_codes_are_bit_for_bit_the_same_where_multiply_adds_are(form: str, columns: int) -> None:
    rows, cols = shapes(form)[1]
    matrix, x = random_matrix(form, rows, cols), inputs(7, 13, cols)
    found = [times(isa, matrix, x, many=columns) for isa in CODES if isa in FUSED]
    assert all(np.array_equal(one, found[0]) for one in found)


@pytest.mark.parametrize("isa", CODES)
@pytest.mark.parametrize("form", INTEGERS)
def test_what_is_no_number_makes_no_number_in_a_product_by_codes(isa: str, form: str) -> None:
    rows, cols = shapes(form)[1]
    matrix = random_matrix(form, rows, cols)
    for value in (np.nan, np.inf, -np.inf):
        for place in (0, 40, cols - 1):
            x = inputs(8, 3, cols)
            x[1, place] = value
            found = times(isa, matrix, x, many=64)
            assert not np.isfinite(found[1]).any() and np.isfinite(found[[0, 2]]).all(), place
    if form == "int4k":
        return
    largest = packed(form, np.full((20, 64), 1e7 if form == "int8" else 6e4))
    x = np.ones((2, 64), np.float32)
    assert np.isfinite(times(isa, largest, x, many=64)).all() == np.isfinite(times(isa, largest, x)).all()


def test_products_that_do_not_exist_are_refused() -> None:
    matrix = random_matrix("fp32", 4, 32)
    for isa in ISAS:
        with pytest.raises(ValueError, match="no such product"):
            times(isa, matrix, np.ones((1, 32)), many=64)
    with pytest.raises(ValueError, match="RIYAZ_ISA=nope cannot run here"):
        times("nope", matrix, np.ones((1, 32)))
    with pytest.raises(ValueError, match="the shape does not fit"):
        times(ISAS[0], matrix, np.ones((1, 33)))
