// Small products of bfloat16 on AMX's tiles, with sums in float32: what attention in training is made of there.
#pragma once

#include "kernels/tiles.h"
#include "kernels/training/products.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

#if defined(__AMX_TILE__)

// Columns n ... n + 15 of 16 rows, which are in tile n; A is in tile 6
template <int N>
INLINE void tile_step(const float* b, ptrdiff_t b_row) {
#define RIYAZ_TILE_COLUMN(I)                           \
    if constexpr (N > I) {                             \
        _tile_loadd(7, b + 16 * I, size_t(b_row) * 4); \
        _tile_dpbf16ps(I, 6, 7);                       \
    }
    RIYAZ_TILE_COLUMN(0)
    RIYAZ_TILE_COLUMN(1)
    RIYAZ_TILE_COLUMN(2)
    RIYAZ_TILE_COLUMN(3)
    RIYAZ_TILE_COLUMN(4)
    RIYAZ_TILE_COLUMN(5)
#undef RIYAZ_TILE_COLUMN
}

// Loads the sums of such columns, sets them to zero, or stores them.
enum class TileMove { load, clear, store };
template <int N, TileMove MOVE>
INLINE void tile_move(float* c, ptrdiff_t c_row) {
#define RIYAZ_TILE_COLUMN(I)                                                                   \
    if constexpr (N > I) {                                                                     \
        if constexpr (MOVE == TileMove::load) _tile_loadd(I, c + 16 * I, size_t(c_row) * 4);   \
        if constexpr (MOVE == TileMove::clear) _tile_zero(I);                                  \
        if constexpr (MOVE == TileMove::store) _tile_stored(I, c + 16 * I, size_t(c_row) * 4); \
    }
    RIYAZ_TILE_COLUMN(0)
    RIYAZ_TILE_COLUMN(1)
    RIYAZ_TILE_COLUMN(2)
    RIYAZ_TILE_COLUMN(3)
    RIYAZ_TILE_COLUMN(4)
    RIYAZ_TILE_COLUMN(5)
#undef RIYAZ_TILE_COLUMN
}

template <int N>
INLINE void tile_rows(const float* a, ptrdiff_t a_row, const float* b, ptrdiff_t b_row, int steps, float* c,
                      ptrdiff_t c_row, bool add_) {
    add_ ? tile_move<N, TileMove::load>(c, c_row) : tile_move<N, TileMove::clear>(c, c_row);
    for (int k = 0; k < steps; k++) {
        _tile_loadd(6, a + 16 * k, size_t(a_row) * 4);
        tile_step<N>(b + 16 * k * b_row, b_row);
    }
    tile_move<N, TileMove::store>(c, c_row);
}

// Adds to C (or sets it) the product of 16 rows of A and `vectors` of 16 columns of B, over `steps` of 16 words each of
// two numbers
inline void tile_product(const float* a, ptrdiff_t a_row, const float* b, ptrdiff_t b_row, int steps, int vectors,
                         float* c, ptrdiff_t c_row, bool add_) {
    written();
    for (; vectors >= 6; vectors -= 6, b += 96, c += 96) tile_rows<6>(a, a_row, b, b_row, steps, c, c_row, add_);
    if (vectors == 5) return tile_rows<5>(a, a_row, b, b_row, steps, c, c_row, add_);
    if (vectors == 4) return tile_rows<4>(a, a_row, b, b_row, steps, c, c_row, add_);
    if (vectors == 3) return tile_rows<3>(a, a_row, b, b_row, steps, c, c_row, add_);
    if (vectors == 2) return tile_rows<2>(a, a_row, b, b_row, steps, c, c_row, add_);
    if (vectors == 1) tile_rows<1>(a, a_row, b, b_row, steps, c, c_row, add_);
}

// The numbers x[lines][PANEL] of the first `keys`, rounded and turned: words [keys][row] of two lines each; `lines` is
// a multiple of 32, `keys` of 16
inline void turn_pairs(const float* x, int lines, int keys, int row, float* out) {
    for (int key = 0; key < keys; key += 16)
        for (int r = 0; r < lines; r += 32) {
            B words[16];
            for (int i = 0; i < 16; i++) {
                const float* from = x + (r + 2 * i) * PANEL + key;
                words[i] = paired(load(from), load(from + PANEL));
            }
            turn_words(words);
            for (int i = 0; i < 16; i++) store_bytes(out + (key + i) * row + r / 2, words[i]);
        }
}

#endif

}  // namespace
}  // namespace RIYAZ_ISA
}  // namespace riyaz
