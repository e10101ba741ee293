// Products of packed weights with many tokens, on AMX tiles in bfloat16 with float32 sums.
//
// Some blocks of rows are unpacked to bfloat16, in the layout of Format::bf16, which is that of the right operand of a
// tile product, and stay in the second cache; then all tokens pass, 32 at a time, in 2 x 2 tiles. So many columns are
// taken at a time that two blocks stay in the first cache meanwhile, and the tokens are loaded past it, from strips of
// 32 columns. A token's sums run over the columns in order, so that they do not depend on other tokens.
#include "kernels/isa.h"
#include "kernels/tiles.h"
#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {

#if defined(RIYAZ_TILES)
namespace {

constexpr int TOKENS = 32;          // of a 2 x 2 tile
constexpr int COLUMNS = 640;        // at a time, of two blocks that fit the first cache
constexpr int TOKENS_BEHIND = 128;  // tokens that stay in the second cache with wider blocks of gate and up

// Numbers of 4 bits at bit 19 ... 22 of a float between 1 and 2: 1 + code / 16, so that no conversion is needed
INLINE F nibble(B word, int bit) {
    const B moved =
        bit < 19 ? _mm512_slli_epi32(word, unsigned(19 - bit)) : _mm512_srli_epi32(word, unsigned(bit - 19));
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(moved, iset(0x780000), iset(0x3f800000), 0xea));  // (moved & mask) | one
}
// The same for 8 bits: 1 + code / 256
INLINE F byte(B word, int bit) {
    const B moved =
        bit < 15 ? _mm512_slli_epi32(word, unsigned(15 - bit)) : _mm512_srli_epi32(word, unsigned(bit - 15));
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(moved, iset(0x7f8000), iset(0x3f800000), 0xea));
}
// bfloat16 of `even` and `odd`, in pairs
INLINE void store_pairs(uint16_t* at, F even, F odd) {
    alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const B both = (B)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_store_si512(at, _mm512_permutexvar_epi16(_mm512_load_si512(order), both));
}

INLINE void unpack_nibbles(const Nibbles& codes, F scale, F minimum, uint16_t* out) {
    const F factor = mul(scale, set(16)), offset = sub(minimum, factor);
#pragma GCC unroll 4
    for (int z = 0; z < 4; z++) {
        const B word = load_bytes(codes[z]);
#pragma GCC unroll 4
        for (int j = 0; j < 8; j += 2) {  // columns 8 z + j and the next
            const int bit = j < 4 ? 8 * j : 8 * (j - 4) + 4;
            store_pairs(out + (8 * z + j) * ROWS, fma(factor, nibble(word, bit), offset),
                        fma(factor, nibble(word, bit + 8), offset));
        }
    }
}

// One group of 32 columns of a block as pairs of bfloat16
INLINE void unpack_group(const Weights& w, int b, int g, uint16_t* out) {
    const uint8_t* block = w.block(b);
    if (w.format == Format::int4) {
        const Int4Part part = w.int4_part(b, g);
        const F scale = load_half(part.scale);
        unpack_nibbles(*part.codes, scale, part.minimum ? load_half(part.minimum) : mul(scale, set(-8)), out);
    } else if (w.format == Format::int4k) {
        const Int4KTile& tile = ((const Int4KTile*)block)[g / (SUPER / GROUP)];
        const auto& group = tile.groups[g % (SUPER / GROUP)];
        unpack_nibbles(group.codes, mul(load_half(tile.scale), load_u8(group.s)),
                       mul(sub(zero(), load_half(tile.minimum)), load_u8(group.m)), out);
    } else {
        const Int8Upper& upper = w.upper(b)[g];
        const Int8Lower& lower = w.lower(b)[g];
        const F scale = load_half(upper.scale), factor = mul(scale, set(256)), offset = mul(scale, set(-384));
#pragma GCC unroll 4
        for (int z = 0; z < 4; z++) {
            const B up = load_bytes(upper.codes[z]), down = load_bytes(lower.codes[z]);
            const B words[2] = {whole_low(up, down), whole_high(up, down)};
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++)
#pragma GCC unroll 2
                for (int j = 0; j < 4; j += 2)
                    store_pairs(out + (8 * z + 4 * i + j) * ROWS, fma(factor, byte(words[i], 8 * j), offset),
                                fma(factor, byte(words[i], 8 * j + 8), offset));
        }
    }
}

// Some columns of the block's rows, whole groups, as [columns / 2][16][2] bfloat16: in place, or unpacked to `out`.
// Those of int8row are codes, which bfloat16 holds exactly, unlike their products with scales: see `scale_of`.
const uint16_t* panel(const Weights& w, int b, int first, int columns, uint16_t* out) {
    const int held = min_of(columns, w.cols - first);  // the others pad
    if (w.format == Format::bf16) {
        const uint16_t* own = (const uint16_t*)w.block(b) + size_t(first) * ROWS;
        if (held == columns) return own;
        memcpy(out, own, size_t(held) * ROWS * 2);
    } else if (w.format == Format::int8row) {
        const auto* codes = (const int8_t*)w.block(b) + size_t(first) * ROWS;
        for (int c = 0; c < held; c += 2)
            store_pairs(out + c * ROWS, load_i8(codes + c * ROWS), load_i8(codes + (c + 1) * ROWS));
    } else {
        for (int g = 0; g < held / GROUP; g++) unpack_group(w, b, first / GROUP + g, out + g * GROUP * ROWS);
    }
    memset(out + size_t(held) * ROWS, 0, size_t(columns - held) * ROWS * 2);
    return out;
}

// What sums over the panel of block b are multiplied with, a number for each row
INLINE F scale_of(const Weights& w, int b) { return w.format == Format::int8row ? load_bf16(w.row_scales(b)) : set(1); }

// Adds 32 tokens times two panels to the sums in tiles 0 ... 3: [2 tiles of tokens][2 panels]. Calls meanwhile(i) for
// i = 0, 2, ... TOKENS - 2 between tile instructions, which leave the rest of the core idle.
template <class Body>
INLINE void product(const uint16_t* left, const uint16_t* right, const Inputs& x, int t, const Body& meanwhile) {
    written();
    const size_t strip = size_t(x.strip_rows) * GROUP;
    const uint16_t* own = x.strips + t * GROUP;
    int token = 0;
    for (int k = 0; k < x.cols; k += GROUP, own += strip) {
        if (token < TOKENS) meanwhile(token), token += 2;
        _tile_loadd(6, left + k * ROWS, 64);
        _tile_stream_loadd(4, own, 64);
        _tile_loadd(7, right + k * ROWS, 64);
        _tile_stream_loadd(5, own + ROWS * GROUP, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    for (; token < TOKENS; token += 2) meanwhile(token);
}

// Fetches the lines of two panels' results of tokens i and i + 1, to be written: they are mostly further away than the
// second cache, and stores of tiles would wait for each
INLINE void fetch_results(const float* y, size_t stride, int i) {
    for (const float* at = y + i * stride; at <= y + (i + 1) * stride; at += stride)
        __builtin_prefetch(at, 1), __builtin_prefetch(at + ROWS, 1);
}

// The part of 32 tokens and 32 rows that exists: copied to or from `y`
INLINE void copy_part(float* y, size_t stride, float* sums, int tokens, int rows, bool to_y) {
    for (int t = 0; t < tokens; t++) {
        float *outer = y + t * stride, *inner = sums + t * 2 * ROWS;
        memcpy(to_y ? outer : inner, to_y ? inner : outer, size_t(rows) * 4);
    }
}

// Nearly equal parts of the columns, of at most COLUMNS
INLINE int columns_at_once(int cols) { return padded(cols / ((cols + COLUMNS - 1) / COLUMNS), GROUP); }

// The inputs of some columns from `column` on
INLINE Inputs some_columns(const Inputs& x, int column, int columns) {
    Inputs part = x;
    part.cols = min_of(columns, x.cols - column), part.strips += size_t(column) * x.strip_rows;
    return part;
}

// `activated` to 2^-13, as its results are rounded to bfloat16
INLINE F quickly_activated(F x, Activation activation) {
    if (activation == Activation::relu2) return mul(max(x, zero()), x);
    F power = mul(x, set(-LOG2_E));
    if (activation == Activation::gelu_tanh)
        power = mul(mul(set(-2 * LOG2_E * 0.7978845608028654f), x), fma(mul(x, x), set(0.044715f), set(1)));
    return mul(x, _mm512_rcp14_ps(add(set(1), exp2(power))));
}

// The part of the products with the panels of blocks b and b + 1 that exists, times their scales, to `y`
INLINE void put_scaled(const Weights& w, int b, const float* sums, int tokens, int rows, float* y, size_t stride,
                       bool add_) {
    const F left = scale_of(w, b), right = rows > ROWS ? scale_of(w, b + 1) : left;
    for (int t = 0; t < tokens; t++, y += stride, sums += 2 * ROWS) {
        put(y, mul(left, load(sums)), rows, add_);
        if (rows > ROWS) put(y + ROWS, mul(right, load(sums + ROWS)), rows - ROWS, add_);
    }
}

// Products of 32 tokens with a panel of gate and one of up, whose activation follows during the next product
struct GatedTile {
    float* sums;  // [TOKENS][2][ROWS]
    uint16_t* y;  // of token 0 and row 0, in a strip
    int tokens, rows;
    F gate, up;  // scales

    INLINE_MEMBER void finish(int token, Activation activation) const {
        if (token >= tokens) return;
        const F g = mul(gate, load(sums + token * 2 * ROWS));
        const F u = mul(up, load(sums + token * 2 * ROWS + ROWS));
        const F v = mul(quickly_activated(g, activation), u);
        store_rounded(y + token * GROUP, rows >= ROWS ? v : select((1u << rows) - 1, v, zero()));
    }
};

// Zeros for the columns of y's last strip behind `block`, which is the last one
void end_strip(const Inputs& y, int block, int T) {
    if (block % 2) return;
    uint16_t* at = y.strips + size_t(block / 2) * y.strip_rows * GROUP + ROWS;
    for (int t = 0; t < T; t++) memset(at + t * GROUP, 0, ROWS * 2);
}

// Adds the products with up to PANELS blocks from `first` on and with `x`, which holds columns from `column` on
INLINE void add_columns(const Weights& w, int first, int count, int column, const Inputs& x, int T, float* y,
                        size_t stride, bool add_, void* scratch) {
    const bool scaled = w.format == Format::int8row;
    float* sums = (float*)scratch;  // 32 tokens, 32 rows
    uint16_t* space = (uint16_t*)((uint8_t*)scratch + 4096);
    const uint16_t* panels[PANELS + 1];
    for (int i = 0; i < count; i++) panels[i] = panel(w, first + i, column, x.cols, space + size_t(i) * x.cols * ROWS);
    panels[count] = panels[count - 1];  // the right one of an odd number, its results are not stored
    const auto tile = [&](int t, int i) {
        const int tokens = T - t < TOKENS ? T - t : TOKENS;
        float* at = y + t * stride + (first + i) * ROWS;
        const int left_over = i + 1 < count ? w.rows - (first + i) * ROWS : min_of(ROWS, w.rows - (first + i) * ROWS);
        const int rows = min_of(left_over, 2 * ROWS);
        const bool whole = tokens == TOKENS && rows == 2 * ROWS;
        if (!add_ || scaled)
            zero_sums();
        else if (whole)
            load_sums(at, stride);
        else
            copy_part(at, stride, sums, tokens, rows, false), load_sums(sums, 2 * ROWS);
        product(panels[i], panels[i + 1], x, t, [&](int token) { fetch_results(at, stride, token); });
        if (scaled)
            store_sums(sums, 2 * ROWS), put_scaled(w, first + i, sums, tokens, rows, at, stride, add_);
        else if (whole)
            store_sums(at, stride);
        else
            store_sums(sums, 2 * ROWS), copy_part(at, stride, sums, tokens, rows, true);
    };
    for (int i = 0; i < count; i += 2)
        for (int t = 0; t < T; t += TOKENS) tile(t, i);
}

}  // namespace

void many_tokens(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add_,
                 void* scratch) {
    configure_tiles();
    const int columns = columns_at_once(x.cols);
    for (int first = begin; first < end; first += PANELS)
        for (int column = 0; column < x.cols; column += columns)
            add_columns(w, first, min_of(end - first, PANELS), column, some_columns(x, column, columns), T, y, stride,
                        add_ || column, scratch);
}

void many_tokens_gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                       const Inputs& x, int T, const Inputs& y, void* scratch) {
    configure_tiles();
    float* sums = (float*)scratch;
    uint16_t* space = (uint16_t*)((uint8_t*)scratch + 4096);
    for (int first = begin; first < end; first += PANELS / 2) {
        const int count = min_of(end - first, PANELS / 2);
        const uint16_t* panels[PANELS];
        for (int i = 0; i < count; i++) {
            panels[2 * i] = panel(gate, first + i, 0, x.cols, space + size_t(2 * i) * x.cols * ROWS);
            panels[2 * i + 1] = panel(up, first + i, 0, x.cols, space + size_t(2 * i + 1) * x.cols * ROWS);
        }
        GatedTile before = {};
        const auto tile = [&](int t, int pair) {
            const int block = first + pair / 2;
            zero_sums();
            product(panels[pair], panels[pair + 1], x, t,
                    [&](int token) { before.finish(token, activation), before.finish(token + 1, activation); });
            uint16_t* at = y.strips + (size_t(block / 2) * y.strip_rows + t) * GROUP + block % 2 * ROWS;
            before = {
                sums, at, min_of(TOKENS, T - t), gate.rows - block * ROWS, scale_of(gate, block), scale_of(up, block)};
            store_sums(sums, 2 * ROWS);
        };
        const int step = x.cols <= COLUMNS ? T : TOKENS_BEHIND;
        for (int from = 0; from < T; from += step)
            for (int pair = 0; pair < 2 * count; pair += 2)
                for (int t = from; t < min_of(from + step, T); t += TOKENS) tile(t, pair);
        for (int token = 0; token < TOKENS; token++) before.finish(token, activation);
    }
    if (end == gate.blocks()) end_strip(y, end - 1, T);
}

void many_tokens_inputs(const float* x, int C, const Inputs& out) {
    const size_t strip = size_t(out.strip_rows) * GROUP;
    for (int c = 0; c < out.cols; c += 16) {
        float part[16] = {};
        if (C - c < 16 && c < C) memcpy(part, x + c, size_t(C - c) * 4);
        store_rounded(out.strips + c / GROUP * strip + c % GROUP, C - c < 16 ? load(part) : load(x + c));
    }
}

#endif

}  // namespace RIYAZ_ISA
}  // namespace riyaz
