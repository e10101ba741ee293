// Packed weights: the same bytes on every CPU. LAYOUT_VERSION changes whenever they do.
//
// A matrix (rows, cols) is cut into blocks of 16 rows, stored one after the other; columns are padded with zeros to a
// multiple of 16 (fp32, bf16, int8row), 32 or 256 (int4k), rows to a multiple of 16. Inside a block a 64-byte word
// holds something of all 16 rows, so that row r is lane r of a vector register, on every instruction set, and no kernel
// adds across lanes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace riyaz {

constexpr int LAYOUT_VERSION = 1;
constexpr int ROWS = 16;    // rows of a block
constexpr int GROUP = 32;   // columns with one scale: of inputs, of weights unless Weights::group says more, of keys
constexpr int SUPER = 256;  // columns of a Q4_K super-block
constexpr int MANY_TOKENS_GROUP = 64;  // columns of inputs with one scale, at most, in products of many tokens by codes

enum class Format : int32_t {
    fp32,     // [col][16 rows] float
    bf16,     // [col / 2][16 rows][2] bfloat16: also the right operand of AMX's bf16 product
    int8,     // an Int8Upper per 32 columns of every block, then an Int8Lower per 32 columns of every block
    int4,     // per Weights::group columns an Int4Tile, or what replaces it
    int4k,    // per 256 columns an Int4KTile
    int8row,  // [col][16 rows] signed codes, then 16 scales in bfloat16, one for each row: matrices of LoRA pairs
    ternary,  // per Weights::group columns TernaryWords of TERNARY columns, then 16 scales in float32
    trits     // per Weights::group columns TernaryWords of TRITS columns, then 16 scales in float32
};

// Codes of 4 bits: word z holds columns 8 z + j in the low and 8 z + 4 + j in the high half of byte [row][j].
using Nibbles = uint8_t[4][16][4];

// 32 columns of 16 rows: weight = scale * (code - 128). The matrix holds the scales and the upper halves of all codes,
// then the lower halves. The search for the likeliest token can nearly always skip most of the lower halves.
struct Int8Upper {
    Nibbles codes;
    uint16_t scale[16];  // half precision, one for each row
};
struct Int8Lower {
    Nibbles codes;
};
static_assert(sizeof(Int8Upper) == 288 && sizeof(Int8Lower) == 256);

// 32 columns of 16 rows: weight = scale * code + minimum, as in GGUF's Q4_1. A group of 64 or 128 columns has 2 or 4
// Nibbles before the scales. The last group of a row ends with the row. A matrix without minimums stores none:
// weight = scale * (code - 8), as in GGUF's Q4_0.
struct Int4Tile {
    Nibbles codes;
    uint16_t scale[16], minimum[16];  // half precision
};
static_assert(sizeof(Int4Tile) == 320 && offsetof(Int4Tile, scale) == sizeof(Nibbles));
static_assert(offsetof(Int4Tile, minimum) == sizeof(Nibbles) + 32);

// 256 columns of 16 rows: weight = scale * s * code - minimum * m, as in GGUF's Q4_K
struct Int4KTile {
    uint16_t scale[16], minimum[16];  // half precision
    struct {
        uint8_t s[16], m[16];  // 6 bits each
        Nibbles codes;
    } groups[8];
};
static_assert(sizeof(Int4KTile) == 2368);

// Weights of -1, 0 and 1, as codes 0, 1 and 2 in byte [row][j]: in `ternary` column 16 b + 4 f + j of word b takes bits
// 2 f and 2 f + 1; in `trits` the byte is the sum of 3^f times the code of column 20 b + 4 f + j. So the inputs of one
// place f are 4 neighbours. Columns that are none, as behind a group in its last word, have the code 0, which adds
// nothing, whatever input stands in their place.
using TernaryWord = uint8_t[16][4];
constexpr int TERNARY = 16, TRITS = 20;  // columns of a word: 2 and 1.6 bits a weight

static constexpr int padded(int size, int to) { return (size + to - 1) / to * to; }

// Columns of a matrix as they are stored
static constexpr int padded_cols(Format format, int cols) {
    return padded(cols, format == Format::int4k                            ? SUPER
                        : format == Format::int8 || format == Format::int4 ? GROUP
                                                                           : 16);
}

// Bytes of the scales, and minimums if any, of an int4 group
static constexpr size_t int4_scale_bytes(bool minimum) { return sizeof(uint16_t[16]) * (minimum ? 2 : 1); }

// Bytes of a group of `cols` ternary columns, its scales included
static constexpr size_t ternary_bytes(Format format, int cols) {
    const int word = format == Format::trits ? TRITS : TERNARY;
    return size_t(padded(cols, word) / word) * sizeof(TernaryWord) + sizeof(float[ROWS]);
}

// Bytes of one block of 16 rows; `cols` is padded, `group` and `minimum` are those of int4, `group` of ternary too.
static constexpr size_t block_bytes(Format format, int cols, int group = GROUP, bool minimum = true) {
    switch (format) {
        case Format::fp32:
            return size_t(cols) * ROWS * 4;
        case Format::bf16:
            return size_t(cols) * ROWS * 2;
        case Format::int8:
            return size_t(cols) / GROUP * (sizeof(Int8Upper) + sizeof(Int8Lower));
        case Format::int4:
            return size_t(cols) / GROUP * sizeof(Nibbles) +
                   size_t(padded(cols, group) / group) * int4_scale_bytes(minimum);
        case Format::int4k:
            return size_t(cols) / SUPER * sizeof(Int4KTile);
        case Format::int8row:
            return size_t(cols) * ROWS + sizeof(uint16_t[ROWS]);
        case Format::ternary:
        case Format::trits:
            return size_t(cols / group) * ternary_bytes(format, group) +
                   (cols % group ? ternary_bytes(format, cols % group) : 0);
    }
    return 0;
}
static_assert(block_bytes(Format::int4, 96) == 3 * sizeof(Int4Tile));
static_assert(block_bytes(Format::int4, 128, 64) == 4 * 256 + 2 * 64);
static_assert(block_bytes(Format::int4, 192, 128, false) == 6 * 256 + 2 * 32);
static_assert(block_bytes(Format::ternary, 192, 128) == 12 * 64 + 2 * 64);
static_assert(block_bytes(Format::trits, 64, 64) == 4 * 64 + 64);
static_assert(block_bytes(Format::trits, 192, 128) == 7 * 64 + 64 + 4 * 64 + 64);
static constexpr bool is_ternary(Format format) { return format == Format::ternary || format == Format::trits; }

// The part of an int4 group that holds 32 of its columns; `minimum` is null where there is none.
struct Int4Part {
    const Nibbles* codes;
    const uint16_t *scale, *minimum;
};

// Members are always inlined: kernels of several instruction sets use them.
#define INLINE_MEMBER __attribute__((always_inline))

// A packed matrix, not owned. `cols` is padded; `rows` is not.
struct Weights {
    const uint8_t* data = nullptr;
    Format format = Format::fp32;
    int rows = 0, cols = 0;
    int group = GROUP;    // columns with one scale: in int4 32, 64 or 128; in ternary a multiple of 16, or all
    bool minimum = true;  // int4: whether groups have minimums
    size_t step = 0;      // bytes of a block of 16 rows

    INLINE_MEMBER int blocks() const { return padded(rows, ROWS) / ROWS; }
    INLINE_MEMBER size_t groups() const { return size_t(cols) / GROUP; }
    // Where block i begins; its upper halves in int8
    INLINE_MEMBER const uint8_t* block(int i) const {
        return data + i * (format == Format::int8 ? groups() * sizeof(Int8Upper) : step);
    }
    // Columns 32 g ... 32 g + 31 of block i
    INLINE_MEMBER Int4Part int4_part(int i, int g) const {
        const int parts = group / GROUP, first = g & -parts, tile = first >> __builtin_ctz(parts);
        const int held = int(groups()) - first < parts ? int(groups()) - first : parts;
        const uint8_t* at = data + i * step + first * sizeof(Nibbles) + tile * int4_scale_bytes(minimum);
        const auto* scale = (const uint16_t*)(at + held * sizeof(Nibbles));
        return {(const Nibbles*)at + (g - first), scale, minimum ? scale + ROWS : nullptr};
    }
    // int8row: the scales of block i
    INLINE_MEMBER const uint16_t* row_scales(int i) const {
        return (const uint16_t*)(data + i * step + size_t(cols) * ROWS);
    }
    // ternary, trits: where the codes of group g of block i begin, with the group's scales behind them
    INLINE_MEMBER const uint8_t* ternary_group(int i, int g) const {
        return data + i * step + g * ternary_bytes(format, group);
    }
    INLINE_MEMBER const Int8Upper* upper(int i) const { return (const Int8Upper*)data + i * groups(); }
    INLINE_MEMBER const Int8Lower* lower(int i) const {
        return (const Int8Lower*)((const Int8Upper*)data + blocks() * groups()) + i * groups();
    }
};

// Keys and values of 32 tokens ("slots") of one layer and one key/value head, in a page of the cache. D is the head
// size padded to a multiple of 32.
enum class Kv : int32_t {
    fp32,  // keys [D][32 slots], values [32 slots][D]
    bf16,  // keys [2][D / 2][16 slots][2]: slot s is in half s / 16, dimension d in pair d / 2
           // values [16][D][2]: slot s is in pair s / 2
    int8   // keys [2][D][16 slots] codes, then [D / 32][32 slots] floats: key = scale * code in groups of 32 dimensions
           // values [32 slots][D] codes, then [32 slots] floats: one scale for each
};
// Unused slots are zero; in int8 their scales are.
constexpr int SLOTS = 32;
constexpr int MAX_HEAD = 512;  // largest padded head size that attention has room for
static constexpr size_t key_codes(int padded_head) { return size_t(SLOTS) * padded_head; }  // bytes before the scales
static constexpr size_t key_bytes(int padded_head, Kv kv) {
    if (kv == Kv::int8) return key_codes(padded_head) + padded_head / GROUP * sizeof(float[SLOTS]);
    return key_codes(padded_head) * (kv == Kv::fp32 ? 4 : 2);
}
static constexpr size_t value_bytes(int padded_head, Kv kv) {
    if (kv == Kv::int8) return key_codes(padded_head) + sizeof(float[SLOTS]);
    return key_codes(padded_head) * (kv == Kv::fp32 ? 4 : 2);
}
static_assert(key_bytes(64, Kv::fp32) == 8192 && value_bytes(64, Kv::bf16) == 4096);
static_assert(key_bytes(64, Kv::int8) == 2048 + 256 && value_bytes(64, Kv::int8) == 2048 + 128);
static_assert(key_bytes(32, Kv::int8) % 64 == 0 && value_bytes(32, Kv::int8) % 64 == 0);

}  // namespace riyaz
