// Products of packed weights with many tokens, for CPUs without AMX: lanes are rows.
//
// Two blocks of rows are unpacked once, then all tokens pass, a few at a time. Integer weights are encoded anew in 8
// bits with one scale in a group of columns, at most half a step of 1/127 of the largest one off: a product of codes
// takes one instruction for 64 weights, and only after a group are its sums multiplied with scales. Groups have 64
// columns, or 32, in which int8 keeps its own codes and scales: twice the scales to multiply. Weights in int8row become
// floats, and those in bfloat16 where the CPU multiplies floats faster. A token's operations do not depend on other
// tokens.
#include "../simd.h"
#include "codes.h"
#include "parts.h"

namespace riyaz {
namespace RIYAZ_ISA {

#if defined(RIYAZ_WIDE_LANES)
namespace {

// Sums of BLOCKS blocks times TOKENS tokens stand in registers.
#if defined(__AVX512F__)
constexpr int BLOCKS = 2, TOKENS = 12;
#else
constexpr int BLOCKS = 1, TOKENS = 5;
#endif

// A block of 16 rows: codes [cols / 4][16][4] that mean code - 128, and scales [groups][16]; or floats [cols][16]
struct Panel {
    uint8_t* codes;
    float *scales, *floats;
};

// Columns of weights that are unpacked to floats; 0 of those that get codes
int float_cols(const Weights& w) { return w.format == Format::bf16 || w.format == Format::int8row ? w.cols : 0; }

// New codes of one group of 32 columns: (code * factor + offset) / 256
template <class Codes>
INLINE void encode(const Codes& codes, F factor, F offset, uint8_t* out) {
    const B a = doubled(to_int(factor)), b = doubled(to_int(offset));
#pragma GCC unroll 4
    for (int z = 0; z < 4; z++) {
        B first, second;
        codes(z, first, second);
        store_bytes(out + 128 * z, scaled(first, a, b)), store_bytes(out + 128 * z + 64, scaled(second, a, b));
    }
}

constexpr float MIDDLE = 128 * 256 + 128;  // the code of zero, and half of 256 for rounding

// Not a number where x is infinite or none, else zero
INLINE F flaw(F x) { return sub(x, x); }

// `n` groups of 32 columns, one or two, of weights = scale * code + minimum, with one scale
INLINE void unpack_nibbles(const Nibbles* const* codes, const F* scale, const F* minimum, int n, uint8_t* out,
                           float* scales) {
    F largest = zero(), flaws = zero();
    for (int i = 0; i < n; i++) {
        largest = max(largest, max(abs(minimum[i]), abs(fma(set(15), scale[i], minimum[i]))));
        flaws = add(flaws, add(flaw(scale[i]), flaw(minimum[i])));
    }
    const F step = add(mul(largest, set(1 / 127.0f)), flaws), inverse = div(set(256), step);
    store(scales, step);
    for (int i = 0; i < n; i++) {
        const auto halves = [&](int z, B& first, B& second) {
            const B both = load_bytes((*codes[i])[z]);
            first = low(both), second = high(both);
        };
        encode(halves, mul(scale[i], inverse), fma(minimum[i], inverse, set(MIDDLE)), out + i * GROUP * ROWS);
    }
}

INLINE void unpack_bytes(const Int8Upper* upper, const Int8Lower* lower, int n, uint8_t* out, float* scales) {
    F scale[2], largest = zero(), flaws = zero();
    for (int i = 0; i < n; i++) {
        scale[i] = load_half(upper[i].scale);
        largest = max(largest, abs(scale[i])), flaws = add(flaws, flaw(scale[i]));
    }
    const F step = add(largest, flaws), inverse = div(set(256), step);
    store(scales, step);
    for (int i = 0; i < n; i++) {
        const auto halves = [&](int z, B& first, B& second) {
            const B up = load_bytes(upper[i].codes[z]), down = load_bytes(lower[i].codes[z]);
            first = whole_low(up, down), second = whole_high(up, down);
        };
        const F factor = floor(fma(scale[i], inverse, set(0.5f)));
        encode(halves, factor, fma(set(-128), factor, set(MIDDLE)), out + i * GROUP * ROWS);
    }
}

void unpack_floats(const Weights& w, int b, float* out) {
    if (w.format == Format::int8row) {
        const F scale = load_bf16(w.row_scales(b));
        const auto* codes = (const int8_t*)w.block(b);
        for (int c = 0; c < w.cols; c++) store(out + c * ROWS, mul(scale, load_i8(codes + c * ROWS)));
        return;
    }
    for (int c = 0; c < w.cols; c += 2) {
        const B pairs = load_bytes(w.block(b) + size_t(c) * 32);
        store(out + c * ROWS, first(pairs)), store(out + (c + 1) * ROWS, second(pairs));
    }
}

void unpack(const Weights& w, int b, int group, const Panel& panel) {
    if (float_cols(w)) return unpack_floats(w, b, panel.floats);
    const int groups = w.cols / GROUP, parts = group / GROUP;
    for (int g = 0; g < groups; g += parts) {
        const int n = min_of(parts, groups - g);
        uint8_t* out = panel.codes + size_t(g) * GROUP * ROWS;
        float* scales = panel.scales + g / parts * ROWS;
        if (w.format == Format::int8) {
            unpack_bytes(w.upper(b) + g, w.lower(b) + g, n, out, scales);
            continue;
        }
        const Nibbles* codes[2];
        F scale[2], minimum[2];
        for (int i = 0; i < n; i++) {
            if (w.format == Format::int4) {
                const Int4Part part = w.int4_part(b, g + i);
                codes[i] = part.codes, scale[i] = load_half(part.scale);
                minimum[i] = part.minimum ? load_half(part.minimum) : mul(scale[i], set(-8));
            } else {
                const Int4KTile& tile = ((const Int4KTile*)w.block(b))[(g + i) / (SUPER / GROUP)];
                const auto& group = tile.groups[(g + i) % (SUPER / GROUP)];
                codes[i] = &group.codes, scale[i] = mul(load_half(tile.scale), load_u8(group.s));
                minimum[i] = sub(zero(), mul(load_half(tile.minimum), load_u8(group.m)));
            }
        }
        unpack_nibbles(codes, scale, minimum, n, out, scales);
    }
}

// y[panel][token] += rows of N panels times T tokens, in floats
template <int N, int T>
INLINE void add_floats(const Panel* panels, const Inputs& x, int cols, float (&y)[N][T][ROWS]) {
    const float* w = panels[0].floats;
    const ptrdiff_t apart = panels[N - 1].floats - w;  // of two panels
    F sums[T][N];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) sums[t][p] = zero();
    for (int c = 0; c < cols; c++) {
        F rows[N];
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) rows[p] = load(w + p * apart + c * ROWS);
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) {
            const F own = set(x.fp32[t * x.cols + c]);
#pragma GCC unroll 2
            for (int p = 0; p < N; p++) sums[t][p] = fma(rows[p], own, sums[t][p]);
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) store(y[p][t], sums[t][p]);
}

// The same in codes, with one scale in `GROUP_` columns
template <int GROUP_, int N, int T>
INLINE void add_codes(const Panel* panels, const Inputs& x, float (&y)[N][T][ROWS]) {
    const int cols = x.cols, groups = cols / GROUP;
    const ptrdiff_t apart = panels[N - 1].codes - panels[0].codes;  // of two panels
    for (int g = 0; g * GROUP_ < cols; g++) {
        const int steps = min_of(GROUP_, cols - g * GROUP_) / 4;
        const uint8_t* w = panels[0].codes + size_t(g) * GROUP_ * ROWS;
        const int8_t* codes = x.codes + g * GROUP_;
        I sums[T][N];
#pragma GCC unroll 16
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int p = 0; p < N; p++) sums[t][p] = iset(x.total[t * groups + g]);
        for (int step = 0; step < steps; step++) {
            B rows[N];
#pragma GCC unroll 2
            for (int p = 0; p < N; p++) rows[p] = load_bytes(w + p * apart + step * 64);
#pragma GCC unroll 16
            for (int t = 0; t < T; t++) {
                const B own = spread(codes + t * cols + 4 * step);
#pragma GCC unroll 2
                for (int p = 0; p < N; p++) sums[t][p] = dot_bytes(sums[t][p], rows[p], own);
            }
        }
#pragma GCC unroll 2
        for (int p = 0; p < N; p++) {
            const F scale = load(panels[p].scales + g * ROWS);
#pragma GCC unroll 16
            for (int t = 0; t < T; t++) {
                const F both = mul(scale, set(x.scale[t * groups + g]));
                store(y[p][t], fma(both, to_float(sums[t][p]), load(y[p][t])));
            }
        }
    }
}

struct Output {
    int cols;  // of the weights, if they are floats, else 0
    float* y;
    size_t stride;
    bool add;
    bool gated;  // y = activation(first panel) * second panel
    Activation activation;
};

// N panels, the rows of the first of which begin at `row`, `left` rows from there on, times T tokens
template <int N, int T>
void tile(const Panel* panels, const Inputs& x, int row, int left, const Output& out, int t) {
    for (int i = 0; i < T; i++)
        for (int p = 0; p < N; p++) prefetch(out.y + (t + i) * out.stride + row + p * ROWS);
    float sums[N][T][ROWS] = {};
    if (out.cols)
        add_floats<N, T>(panels, x.from(t), out.cols, sums);
    else if (x.wide_group == GROUP)
        add_codes<GROUP, N, T>(panels, x.from(t), sums);
    else
        add_codes<WIDE_GROUP, N, T>(panels, x.from(t), sums);
    for (int i = 0; i < T; i++) {
        float* y = out.y + (t + i) * out.stride + row;
        if (N == 2 && out.gated) {
            const F gate = load(sums[0][i]), up = load(sums[N - 1][i]);
            put(y, mul(activated(gate, out.activation), up), left, false);
            continue;
        }
        for (int b = 0; b < N; b++) put(y + b * ROWS, load(sums[b][i]), left - b * ROWS, out.add);
    }
}

template <int N, int T>
void tokens(const Panel* panels, const Inputs& x, int row, int left, const Output& out, int t, int end) {
    for (; t + T <= end; t += T) tile<N, T>(panels, x, row, left, out, t);
    if constexpr (T > 1) tokens<N, T / 2>(panels, x, row, left, out, t, end);
}

// Room for panel i in `scratch`, which has wide_scratch(cols) bytes
Panel panel_at(void* scratch, int i, int cols) {
    uint8_t* at = (uint8_t*)scratch + i * (wide_scratch(cols) / 4);
    return {at, (float*)(at + size_t(cols) * ROWS), (float*)at};
}

}  // namespace

void wide(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add_,
          void* scratch) {
    const Output out{float_cols(w), y, stride, add_, false, {}};
    Panel panels[BLOCKS];
    for (int first = begin; first < end; first += BLOCKS) {
        const int row = first * ROWS, count = min_of(end - first, BLOCKS);
        for (int i = 0; i < count; i++) unpack(w, first + i, x.wide_group, panels[i] = panel_at(scratch, i, x.cols));
        if (count == BLOCKS)
            tokens<BLOCKS, TOKENS>(panels, x, row, w.rows - row, out, 0, T);
        else
            tokens<1, TOKENS>(panels, x, row, w.rows - row, out, 0, T);
    }
}

void wide_gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation, const Inputs& x,
                int T, const Inputs& y, void* scratch) {
    const Output out{float_cols(gate), y.fp32, size_t(y.cols), false, true, activation};
    const Panel panels[2] = {panel_at(scratch, 0, x.cols), panel_at(scratch, 1, x.cols)};
    for (int b = begin; b < end; b++) {
        unpack(gate, b, x.wide_group, panels[0]), unpack(up, b, x.wide_group, panels[1]);
        tokens<2, TOKENS>(panels, x, b * ROWS, gate.rows - b * ROWS, out, 0, T);
    }
}

void wide_inputs(const float* x, int C, const Inputs& out) {
    const int group = out.wide_group;
    for (int begin = 0, g = 0; begin < out.cols; begin += group, g++) {
        alignas(64) float padded_[WIDE_GROUP];
        const float* part = x + begin;
        const int here = min_of(group, out.cols - begin);
        if (C - begin < group) {
            for (int i = 0; i < group; i++) padded_[i] = begin + i < C ? part[i] : 0;
            part = padded_;
        }
        F v[4] = {zero(), zero(), zero(), zero()};
        for (int i = 0; 16 * i < group; i++) v[i] = load(part + 16 * i);
        for (int i = 0; 16 * i < here; i++) {
            if (out.bf16) store_bf16(out.bf16 + begin + 16 * i, v[i]);
            if (out.fp32) store(out.fp32 + begin + 16 * i, v[i]);
        }
        if (!out.codes) continue;
        out.total[g] = BEGIN * encode_group(v, here / 16, out.codes + begin, out.scale + g);
    }
}

#endif

}  // namespace RIYAZ_ISA
}  // namespace riyaz
