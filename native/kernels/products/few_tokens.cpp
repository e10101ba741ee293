// Products of packed weights with few tokens: lanes are rows, each input is broadcast. Integer weights are multiplied
// with inputs of 16 bits, as two codes of 8, in groups of 32 columns, whose integer sums are the same on every
// instruction set.
//
// R blocks of 16 rows times T tokens are computed at once, to hide latencies and to decode weights once for T tokens.
// The operations on one row and one token are the same for every R and T.
#include "kernels/codes.h"
#include "kernels/isa.h"
#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

constexpr int APART = 2;  // tokens up to which codes and low codes have sums of their own

template <int BYTES>
INLINE void prefetch_all(const uint8_t* at) {
#pragma GCC unroll 64
    for (int i = 0; i < BYTES; i += 64) prefetch(at + i);
}

// Adds the products of the codes of a group with those of T tokens, from `x` on, `cols` apart.
template <int T>
INLINE void add_nibbles(const Nibbles& codes, const int8_t* x, size_t cols, I (&sum)[T]) {
#pragma GCC unroll 4
    for (int z = 0; z < 4; z++) {
        const B both = load_bytes(codes[z]), lower = low(both), upper = high(both);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const int8_t* own = x + t * cols + 8 * z;
            sum[t] = dot_nibbles(dot_nibbles(sum[t], lower, spread(own)), upper, spread(own + 4));
        }
    }
}

// Sums of codes times 256, then those of the low codes to them: `sums` of both where registers allow, so that one does
// not wait for the other.
template <int T>
INLINE void nibbles_dot(const Nibbles& codes, const Inputs& x, size_t g, I (&sum)[T]) {
    const size_t at = g * GROUP;
    I below[T];
    for (int t = 0; t < T; t++) sum[t] = below[t] = izero();
    add_nibbles<T>(codes, x.codes + at, x.cols, sum);
    if (T <= APART) add_nibbles<T>(codes, x.low + at, x.cols, below);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) sum[t] = iadd(times_256(sum[t]), below[t]);
    if (T > APART) add_nibbles<T>(codes, x.low + at, x.cols, sum);
}

// PLAIN: groups of 32 with minimums, whose sizes are constants: without these T > 1 takes 5 % longer
template <int R, int T, bool PLAIN>
INLINE void int4_rows(const Weights& w, const uint8_t* at, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    const size_t groups = size_t(x.cols) / GROUP, parts = size_t(w.group) / GROUP, step = w.step;
    const size_t beside = w.minimum ? ROWS : 0;
    const F factor = set(w.minimum ? 1 : -8);  // of what lies beside the scale, or of the scale
    size_t left = 0, offset = 0;               // parts of 32 columns of a group of weights, bytes of a row
    for (size_t g = 0; g < groups; g++) {
        if (PLAIN)
            left = 1, offset = g * sizeof(Int4Tile);
        else if (left == 0)
            left = groups - g < parts ? groups - g : parts;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const uint8_t* codes = at + r * step + offset;
            prefetch_all<sizeof(Int4Tile)>(far + r * step + offset);
            I sum[T];
            nibbles_dot<T>(*(const Nibbles*)codes, x, g, sum);
            const uint16_t* scales = (const uint16_t*)(codes + left * sizeof(Nibbles));
            const F scale = load_half(scales);
            const F minimum = PLAIN ? load_half(scales + ROWS) : mul(load_half(scales + beside), factor);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                y[r][t] = fma(mul(scale, set(x.scale[t * groups + g])), to_float(sum[t]), y[r][t]);
                y[r][t] = fma(minimum, set(x.sum[t * groups + g]), y[r][t]);
            }
        }
        left--;
        offset += sizeof(Nibbles) + (left ? 0 : int4_scale_bytes(w.minimum));
    }
}

template <int R, int T>
INLINE void int4k_rows(const uint8_t* w, size_t step, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    const size_t cols = x.cols, groups = cols / GROUP;
    for (size_t s = 0; s < cols / SUPER; s++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const Int4KTile& tile = ((const Int4KTile*)(w + r * step))[s];
            prefetch_all<sizeof(Int4KTile)>(far + r * step + s * sizeof(Int4KTile));
            const F all_scale = load_half(tile.scale), all_minimum = sub(zero(), load_half(tile.minimum));
            for (size_t i = 0; i < SUPER / GROUP; i++) {
                const auto& group = tile.groups[i];
                const size_t g = s * (SUPER / GROUP) + i;
                I sum[T];
                nibbles_dot<T>(group.codes, x, g, sum);
                const F scale = mul(all_scale, load_u8(group.s)), minimum = mul(all_minimum, load_u8(group.m));
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    y[r][t] = fma(mul(scale, set(x.scale[t * groups + g])), to_float(sum[t]), y[r][t]);
                    y[r][t] = fma(minimum, set(x.sum[t * groups + g]), y[r][t]);
                }
            }
        }
    }
}

template <int T>
INLINE void add_bytes(const Int8Upper& upper, const Int8Lower& lower, const int8_t* x, size_t cols, I (&sum)[T]) {
#pragma GCC unroll 4
    for (int z = 0; z < 4; z++) {
        const B up = load_bytes(upper.codes[z]), down = load_bytes(lower.codes[z]);
        const B one = whole_low(up, down), two = whole_high(up, down);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const int8_t* own = x + t * cols + 8 * z;
            sum[t] = dot_bytes(dot_bytes(sum[t], one, spread(own)), two, spread(own + 4));
        }
    }
}

template <int R, int T>
INLINE void int8_rows(const Weights& w, int block, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    const size_t cols = x.cols, groups = cols / GROUP;
    const Int8Upper* uppers = w.upper(block);
    const Int8Lower* lowers = w.lower(block);
    for (size_t g = 0; g < groups; g++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const Int8Upper& upper = uppers[r * groups + g];
            const Int8Lower& lower = lowers[r * groups + g];
            prefetch_all<sizeof(Int8Upper)>(far + (r * groups + g) * sizeof(Int8Upper));
            prefetch_all<sizeof(Int8Lower)>((const uint8_t*)&lower + AHEAD);
            I sum[T], below[T];
            for (int t = 0; t < T; t++) sum[t] = izero(), below[t] = iset(BEGIN * x.total[t * groups + g]);
            add_bytes<T>(upper, lower, x.codes + g * GROUP, cols, sum);
            if (T <= APART) add_bytes<T>(upper, lower, x.low + g * GROUP, cols, below);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) sum[t] = iadd(times_256(sum[t]), below[t]);
            if (T > APART) add_bytes<T>(upper, lower, x.low + g * GROUP, cols, sum);
            const F scale = load_half(upper.scale);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++)
                y[r][t] = fma(mul(scale, set(x.scale[t * groups + g])), to_float(sum[t]), y[r][t]);
        }
    }
}

// Two sums for each row and token where registers allow, since a sum waits for the one before it.
template <int R, int T>
INLINE void bf16_rows(const uint8_t* w, size_t step, size_t width, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    constexpr int CHAINS = REGISTERS >= 32 ? 2 : 1;
    const size_t cols = x.cols;
    F sums[CHAINS][R][T];
    for (int i = 0; i < CHAINS; i++)
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) sums[i][r][t] = zero();
    for (size_t k = 0; k < width; k += 4) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const uint8_t* pairs = w + r * step + k * 32;
            prefetch_all<128>(far + r * step + k * 32);
            const B one = load_bytes(pairs), two = load_bytes(pairs + 64);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                F &first = sums[0][r][t], &second = sums[CHAINS - 1][r][t];
                first = dot_bf16(first, one, spread(x.bf16 + t * cols + k));
                second = dot_bf16(second, two, spread(x.bf16 + t * cols + k + 2));
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) y[r][t] = CHAINS == 2 ? add(sums[0][r][t], sums[1][r][t]) : sums[0][r][t];
}

// Codes times inputs in float32, two sums as in bf16_rows; the scale of a row comes last.
template <int R, int T>
INLINE void int8row_rows(const Weights& w, int block, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    constexpr int CHAINS = REGISTERS >= 32 ? 2 : 1;
    const size_t cols = x.cols, step = w.step;
    const auto* codes = (const int8_t*)w.block(block);
    F sums[CHAINS][R][T];
    for (int i = 0; i < CHAINS; i++)
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) sums[i][r][t] = zero();
    for (int k = 0; k < w.cols; k += 4) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            prefetch(far + r * step + k * ROWS);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const F weights = load_i8(codes + r * step + (k + i) * ROWS);
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    F& sum = sums[i % CHAINS][r][t];
                    sum = fma(weights, set(x.fp32[t * cols + k + i]), sum);
                }
            }
        }
    }
    for (int r = 0; r < R; r++) {
        const F scale = load_bf16(w.row_scales(block + r));
        for (int t = 0; t < T; t++)
            y[r][t] = mul(scale, CHAINS == 2 ? add(sums[0][r][t], sums[CHAINS - 1][r][t]) : sums[0][r][t]);
    }
}

template <int R, int T>
INLINE void fp32_rows(const uint8_t* w, size_t step, size_t width, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    const size_t cols = x.cols;
    for (size_t k = 0; k < width; k++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            prefetch(far + r * step + k * 64);
            const F weights = load((const float*)(w + r * step) + k * ROWS);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) y[r][t] = fma(weights, set(x.fp32[t * cols + k]), y[r][t]);
        }
    }
}

template <int R, int T>
INLINE void rows(const Weights& w, int block, const Inputs& x, const uint8_t* far, F (&y)[R][T]) {
    const size_t step = w.step;
    const uint8_t* at = w.data + block * step;
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) y[r][t] = zero();
    switch (w.format) {
        case Format::fp32:
            return fp32_rows<R, T>(at, step, w.cols, x, far, y);
        case Format::bf16:
            return bf16_rows<R, T>(at, step, w.cols, x, far, y);
        case Format::int8:
            return int8_rows<R, T>(w, block, x, far, y);
        case Format::int4:
            return w.group == GROUP && w.minimum ? int4_rows<R, T, true>(w, at, x, far, y)
                                                 : int4_rows<R, T, false>(w, at, x, far, y);
        case Format::int4k:
            return int4k_rows<R, T>(at, step, x, far, y);
        case Format::int8row:
            return int8row_rows<R, T>(w, block, x, far, y);
        case Format::ternary:
        case Format::trits:
            return;  // ternary.cpp
    }
}

template <int R, int T>
void some(const Weights& w, int begin, int end, const Inputs& x, float* y, size_t stride, bool add_,
          const uint8_t* next) {
    const uint8_t* last = w.block(end);
    for (int b = begin; b + R <= end; b += R) {
        F sums[R][T];
        rows<R, T>(w, b, x, ahead(w.block(b), last, next), sums);
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) put(y + t * stride + (b + r) * ROWS, sums[r][t], w.rows - (b + r) * ROWS, add_);
    }
}

template <int R, int T>
void all(const Weights& w, int begin, int end, const Inputs& x, float* y, size_t stride, bool add_,
         const uint8_t* next) {
    const int whole = (end - begin) / R * R;
    some<R, T>(w, begin, begin + whole, x, y, stride, add_, next);
    if (R > 1 && begin + whole < end) some<1, T>(w, begin + whole, end, x, y, stride, add_, next);
}

template <int T>
void gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation, const Inputs& x, float* y,
           size_t stride, const uint8_t* next) {
    for (int b = begin; b < end; b++) {
        F left[1][T], right[1][T];
        rows<1, T>(gate, b, x, ahead(gate.block(b), gate.block(end), next ? next + AHEAD : nullptr), left);
        rows<1, T>(up, b, x, ahead(up.block(b), up.block(end), next), right);
        for (int t = 0; t < T; t++) {
            const F g = activated(left[0][t], activation);
            put(y + t * stride + b * ROWS, mul(g, right[0][t]), gate.rows - b * ROWS, false);
        }
    }
}

}  // namespace

void few_tokens(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add_,
                const uint8_t* next, void* scratch) {
    int t = 0;
    if constexpr (REGISTERS >= 32) {
        begin = few_tokens_unpacked(w, begin, end, x, T, y, stride, add_, scratch);
        for (; t + 8 <= T; t += 8) all<1, 8>(w, begin, end, x.from(t), y + t * stride, stride, add_, next);
    }
    if constexpr (REGISTERS >= 16) {
        for (; t + 4 <= T; t += 4) all<1, 4>(w, begin, end, x.from(t), y + t * stride, stride, add_, next);
        if (t + 2 <= T) all<1, 2>(w, begin, end, x.from(t), y + t * stride, stride, add_, next), t += 2;
    }
    for (; t < T; t++) all<REGISTERS >= 32 ? 2 : 1, 1>(w, begin, end, x.from(t), y + t * stride, stride, add_, next);
}

void few_tokens_gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                      const Inputs& x, int T, float* y, size_t stride, const uint8_t* next, void* scratch) {
    int t = 0;
    if constexpr (REGISTERS >= 32) {
        begin = few_tokens_gated_unpacked(gate, up, begin, end, activation, x, T, y, stride, scratch);
        for (; t + 8 <= T; t += 8) gated<8>(gate, up, begin, end, activation, x.from(t), y + t * stride, stride, next);
    }
    if constexpr (REGISTERS >= 16) {
        for (; t + 4 <= T; t += 4) gated<4>(gate, up, begin, end, activation, x.from(t), y + t * stride, stride, next);
        if (t + 2 <= T) gated<2>(gate, up, begin, end, activation, x.from(t), y + t * stride, stride, next), t += 2;
    }
    for (; t < T; t++) gated<1>(gate, up, begin, end, activation, x.from(t), y + t * stride, stride, next);
}

void inputs(const float* x, int C, const Inputs& out) {
    for (int g = 0; g * GROUP < C; g++) {
        float padded[GROUP];
        const float* part = x + g * GROUP;
        if ((g + 1) * GROUP > C) {
            for (int i = 0; i < GROUP; i++) padded[i] = g * GROUP + i < C ? part[i] : 0;
            part = padded;
        }
        const F v[2] = {load(part), load(part + 16)};
        if (out.fp32) store(out.fp32 + g * GROUP, v[0]), store(out.fp32 + g * GROUP + 16, v[1]);
        if (out.bf16) store_bf16(out.bf16 + g * GROUP, v[0]), store_bf16(out.bf16 + g * GROUP + 16, v[1]);
        if (!out.codes) continue;
        const int at = g * GROUP;
        out.total[g] = encode_group_finely(v, 2, out.codes + at, out.low + at, out.scale + g);
        out.sum[g] = out.scale[g] * float(out.total[g]);
    }
}

void row(const Weights& w, int r, float* out) {
    if (is_ternary(w.format)) return ternary_row(w, r, out);
    const uint8_t* block = w.block(r / ROWS);
    const int lane = r % ROWS;
    for (int c = 0; c < w.cols; c++) {
        const int g = c / GROUP, k = c % GROUP, z = k / 8, j = k % 4, shift = k % 8 / 4 * 4;
        if (w.format == Format::fp32) out[c] = ((const float*)block)[c * ROWS + lane];
        if (w.format == Format::bf16) out[c] = from_bf16(((const uint16_t*)block)[(c / 2 * ROWS + lane) * 2 + c % 2]);
        if (w.format == Format::int8row)
            out[c] = from_bf16(w.row_scales(r / ROWS)[lane]) * float(((const int8_t*)block)[c * ROWS + lane]);
        if (w.format == Format::int8) {
            const Int8Upper& upper = w.upper(r / ROWS)[g];
            const Int8Lower& lower = w.lower(r / ROWS)[g];
            const int code = (upper.codes[z][lane][j] >> shift & 15) << 4 | (lower.codes[z][lane][j] >> shift & 15);
            out[c] = half(upper.scale[lane]) * float(code - 128);
        }
        if (w.format == Format::int4) {
            const Int4Part part = w.int4_part(r / ROWS, g);
            const float scale = half(part.scale[lane]);
            const int code = (*part.codes)[z][lane][j] >> shift & 15;
            out[c] = scale * float(code) + (part.minimum ? half(part.minimum[lane]) : -8 * scale);
        }
        if (w.format == Format::int4k) {
            const Int4KTile& tile = ((const Int4KTile*)block)[c / SUPER];
            const auto& group = tile.groups[g % (SUPER / GROUP)];
            const int code = group.codes[z][lane][j] >> shift & 15;
            out[c] = half(tile.scale[lane]) * float(group.s[lane]) * float(code) -
                     half(tile.minimum[lane]) * float(group.m[lane]);
        }
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
