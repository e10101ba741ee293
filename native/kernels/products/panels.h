// Panels: blocks of rows that are unpacked once for many tokens, and their products, whose sums stand in registers from
// the first column to the last.
#pragma once

#include "kernels/isa.h"

namespace riyaz {
namespace RIYAZ_ISA {

// Panels times tokens of which registers hold the sums, in integers and in floats
#if defined(__AVX512F__)
constexpr int PANELS_AT_ONCE = 2, TOKENS_AT_ONCE = 6;
#else
constexpr int PANELS_AT_ONCE = 1, TOKENS_AT_ONCE = 5;
#endif

// A block of 16 rows: codes [cols / 4][16][4], with scales and minimums [groups][16]; or floats [cols][16]
struct Panel {
    uint8_t* codes;
    float *scales, *minimums, *floats;
};

// Room for panel i, of two, in `scratch`, which has product_scratch(cols) bytes
INLINE Panel panel_at(void* scratch, int i, int cols) {
    uint8_t* at = (uint8_t*)scratch + i * (product_scratch(cols) / 4);
    float* scales = (float*)(at + size_t(cols) * ROWS);
    return {at, scales, scales + size_t(cols) / GROUP * ROWS, (float*)at};
}

// 32 columns of a block of int4 or int4k: weight = scale * code + minimum
struct NibbleGroup {
    const Nibbles* codes;
    F scale, minimum;
};

INLINE NibbleGroup nibble_group(const Weights& w, int b, int g) {
    if (w.format == Format::int4) {
        const Int4Part part = w.int4_part(b, g);
        const F scale = load_half(part.scale);
        return {part.codes, scale, part.minimum ? load_half(part.minimum) : mul(scale, set(-8))};
    }
    const Int4KTile& tile = ((const Int4KTile*)w.block(b))[g / (SUPER / GROUP)];
    const auto& group = tile.groups[g % (SUPER / GROUP)];
    const F minimum = sub(zero(), load_half(tile.minimum));
    return {&group.codes, mul(load_half(tile.scale), load_u8(group.s)), mul(minimum, load_u8(group.m))};
}

// Where products go: y[t * stride + r] for the `left` rows that the matrix still has, 16 of each panel
struct PanelOutput {
    float* y;
    size_t stride;
    int left;
    bool add;
    bool gated;  // y = activation(first panel) * second panel
    Activation activation;
};

// N panels times T tokens
template <int N, int T>
struct Products {
    float sums[T][N][ROWS];

    INLINE_MEMBER void take(const F (&all)[T][N]) {
#pragma GCC unroll 12
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int p = 0; p < N; p++) store(sums[t][p], all[t][p]);
    }
    // From token `begin` on, where the first of all is token t of the output
    INLINE_MEMBER void put_to(const PanelOutput& out, int t, int begin) const {
        for (int i = begin; i < T; i++) {
            float* y = out.y + (t + i) * out.stride;
            if (N == 2 && out.gated) {
                const F gate = load(sums[i][0]), up = load(sums[i][N - 1]);
                put(y, mul(activated(gate, out.activation), up), out.left, false);
                continue;
            }
            for (int p = 0; p < N; p++) put(y + p * ROWS, load(sums[i][p]), out.left - p * ROWS, out.add);
        }
    }
};

template <int N, int T>
INLINE void prefetch_output(const PanelOutput& out, int t) {
    for (int i = t; i < t + T; i++)
        for (int p = 0; p < N; p++) prefetch(out.y + i * out.stride + p * ROWS);
}

// Adds to `sums` the products of codes of N panels, from `w` on, with those of T tokens, for 4 * steps columns.
template <int N, int T>
INLINE void add_codes(const uint8_t* w, ptrdiff_t apart, const int8_t* codes, size_t cols, int steps,
                      Sums (&sums)[T][N]) {
    for (int step = 0; step < steps; step++, w += 64) {
        B rows[N];
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) rows[p] = load_bytes(w + p * apart);
#pragma GCC unroll 6
        for (int t = 0; t < T; t++) {
            const B own = spread(codes + t * cols + 4 * step);
#pragma GCC unroll 2
            for (int p = 0; p < N; p++) sums[t][p] = (Sums)dot_bytes((I)sums[t][p], rows[p], own);
        }
    }
}

// With one scale in `COLUMNS` columns: sums of codes begin with `BEGINS` times the inputs' totals, and minimums, if
// there are any, add a second term. FINE: inputs have a second code, `low`.
template <int COLUMNS, int BEGINS, bool MINIMUMS, bool FINE, int N, int T>
INLINE void multiply_codes(const Panel* panels, const Inputs& x, Products<N, T>& products) {
    const int cols = x.cols, groups = cols / GROUP;
    const ptrdiff_t apart = panels[N - 1].codes - panels[0].codes;  // of two panels
    const uint8_t* w = panels[0].codes;
    F y[T][N];
#pragma GCC unroll 6
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) y[t][p] = zero();
    for (int g = 0; g * COLUMNS < cols; g++) {
        const int steps = COLUMNS == GROUP ? GROUP / 4 : min_of(COLUMNS, cols - g * COLUMNS) / 4;
        const int8_t* codes = x.codes + g * COLUMNS;
        Sums sums[T][N];
#pragma GCC unroll 6
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int p = 0; p < N; p++)
                sums[t][p] = (Sums)(BEGINS && !FINE ? iset(BEGINS * x.total[t * groups + g]) : izero());
        add_codes(w, apart, codes, size_t(cols), steps, sums);
        if (FINE) {
#pragma GCC unroll 6
            for (int t = 0; t < T; t++)
#pragma GCC unroll 2
                for (int p = 0; p < N; p++) {
                    sums[t][p] = (Sums)times_256((I)sums[t][p]);
                    if (BEGINS) sums[t][p] = (Sums)iadd((I)sums[t][p], iset(BEGINS * x.total[t * groups + g]));
                }
            add_codes(w, apart, x.low + g * COLUMNS, size_t(cols), steps, sums);
        }
        w += 64 * steps;
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) {
            const F scale = load(panels[p].scales + g * ROWS);
#pragma GCC unroll 6
            for (int t = 0; t < T; t++) {
                const F both = mul(scale, set(x.scale[t * groups + g]));
                y[t][p] = fma(both, to_float((I)sums[t][p]), y[t][p]);
                if (MINIMUMS) y[t][p] = fma(load(panels[p].minimums + g * ROWS), set(x.sum[t * groups + g]), y[t][p]);
            }
        }
    }
    products.take(y);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
