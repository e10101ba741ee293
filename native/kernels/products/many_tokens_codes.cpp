// Products of packed weights with many tokens, for CPUs without AMX: lanes are rows.
//
// Two blocks of rows are unpacked once, then all tokens pass, a few at a time. Integer weights are encoded anew in 8
// bits with one scale in a group of columns, at most half a step of 1/127 of the largest one off: a product of codes
// takes one instruction for 64 weights, and only after a group are its sums multiplied with scales. Groups have 64
// columns, or 32, in which int8 keeps its own codes and scales: twice the scales to multiply. Weights in int8row become
// floats, and those in bfloat16 where the CPU multiplies floats faster. A token's operations do not depend on other
// tokens.
#include "kernels/codes.h"
#include "kernels/isa.h"
#include "kernels/products/panels.h"
#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {

#if defined(RIYAZ_CODES)
namespace {

// Tokens at a time of weights in floats, of which one sum stands in registers
#if defined(__AVX512F__)
constexpr int FLOAT_TOKENS = 12;
#else
constexpr int FLOAT_TOKENS = TOKENS_AT_ONCE;
#endif

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
INLINE void unpack_nibbles(const NibbleGroup* from, int n, uint8_t* out, float* scales) {
    F largest = zero(), flaws = zero();
    for (int i = 0; i < n; i++) {
        largest = max(largest, max(abs(from[i].minimum), abs(fma(set(15), from[i].scale, from[i].minimum))));
        flaws = add(flaws, add(flaw(from[i].scale), flaw(from[i].minimum)));
    }
    const F step = add(mul(largest, set(1 / 127.0f)), flaws), inverse = div(set(256), step);
    store(scales, step);
    for (int i = 0; i < n; i++) {
        const auto halves = [&](int z, B& first, B& second) {
            const B both = load_bytes((*from[i].codes)[z]);
            first = low(both), second = high(both);
        };
        encode(halves, mul(from[i].scale, inverse), fma(from[i].minimum, inverse, set(MIDDLE)), out + i * GROUP * ROWS);
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
        NibbleGroup nibbles[2];
        for (int i = 0; i < n; i++) nibbles[i] = nibble_group(w, b, g + i);
        unpack_nibbles(nibbles, n, out, scales);
    }
}

template <int N, int T>
INLINE void multiply_floats(const Panel* panels, const Inputs& x, int cols, Products<N, T>& products) {
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
    products.take(sums);
}

// N panels times tokens t ... t + T - 1; `floats`: float_cols of the weights
template <int N, int T>
void tile(const Panel* panels, const Inputs& x, int floats, const PanelOutput& out, int t) {
    prefetch_output<N, T>(out, t);
    Products<N, T> products;
    if (floats)
        multiply_floats(panels, x.from(t), floats, products);
    else if constexpr (T <= TOKENS_AT_ONCE) {
        if (x.many_tokens_group == GROUP)
            multiply_codes<GROUP, 1, false, false>(panels, x.from(t), products);
        else
            multiply_codes<MANY_TOKENS_GROUP, 1, false, false>(panels, x.from(t), products);
    }
    products.put_to(out, t, 0);
}

template <int N, int T>
void tokens(const Panel* panels, const Inputs& x, int floats, const PanelOutput& out, int t, int end) {
    for (; t + T <= end; t += T) tile<N, T>(panels, x, floats, out, t);
    if constexpr (T > 1) tokens<N, T / 2>(panels, x, floats, out, t, end);
}

template <int N>
void all_tokens(const Panel* panels, const Inputs& x, int floats, const PanelOutput& out, int T) {
    (floats ? tokens<N, FLOAT_TOKENS> : tokens<N, TOKENS_AT_ONCE>)(panels, x, floats, out, 0, T);
}

}  // namespace

void many_tokens(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add_,
                 void* scratch) {
    const Panel panels[2] = {panel_at(scratch, 0, x.cols), panel_at(scratch, 1, x.cols)};
    for (int first = begin; first < end; first += PANELS_AT_ONCE) {
        const int row = first * ROWS, count = min_of(end - first, PANELS_AT_ONCE);
        for (int p = 0; p < count; p++) unpack(w, first + p, x.many_tokens_group, panels[p]);
        const PanelOutput out{y + row, stride, w.rows - row, add_, false, {}};
        (count == PANELS_AT_ONCE ? all_tokens<PANELS_AT_ONCE> : all_tokens<1>)(panels, x, float_cols(w), out, T);
    }
}

void many_tokens_gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                       const Inputs& x, int T, const Inputs& y, void* scratch) {
    const Panel panels[2] = {panel_at(scratch, 0, x.cols), panel_at(scratch, 1, x.cols)};
    for (int b = begin; b < end; b++) {
        unpack(gate, b, x.many_tokens_group, panels[0]), unpack(up, b, x.many_tokens_group, panels[1]);
        const PanelOutput out{y.fp32 + b * ROWS, size_t(y.cols), gate.rows - b * ROWS, false, true, activation};
        all_tokens<2>(panels, x, float_cols(gate), out, T);
    }
}

void many_tokens_inputs(const float* x, int C, const Inputs& out) {
    const int group = out.many_tokens_group;
    for (int begin = 0, g = 0; begin < out.cols; begin += group, g++) {
        alignas(64) float padded_[MANY_TOKENS_GROUP];
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
