// Small dense products in float32, and numbers of either type as floats: what attention in training is made of.
#pragma once

#include "../simd.h"
#include "../training_attention.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int COLUMNS = 4;  // vectors of B: 24 sums in 32 registers
#else
constexpr int COLUMNS = 1;  // 6 sums of 16 floats, in 16 registers of AVX2 or 32 of NEON
#endif

typedef float Four __attribute__((vector_size(16)));

INLINE Four four(const float* x) {
    Four r;
    memcpy(&r, x, 16);
    return r;
}

// Adds to C (or sets it) the product of TOGETHER rows of A, a[i * row + k * step], and C vectors of each row of B
template <int C>
INLINE void tile(const float* a, ptrdiff_t row, ptrdiff_t step, const float* b, ptrdiff_t b_row, int depth, float* c,
                 ptrdiff_t c_row, bool add_) {
    F sums[TOGETHER][C];
#pragma GCC unroll 6
    for (int i = 0; i < TOGETHER; i++)
#pragma GCC unroll 4
        for (int n = 0; n < C; n++) sums[i][n] = zero();
    for (int k = 0; k < depth; k++, a += step, b += b_row) {
        F columns[C];
#pragma GCC unroll 4
        for (int n = 0; n < C; n++) columns[n] = load(b + 16 * n);
#pragma GCC unroll 6
        for (int i = 0; i < TOGETHER; i++) {
            const F x = set(a[i * row]);
#pragma GCC unroll 4
            for (int n = 0; n < C; n++) sums[i][n] = fma(x, columns[n], sums[i][n]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < TOGETHER; i++)
#pragma GCC unroll 4
        for (int n = 0; n < C; n++) {
            float* to = c + i * c_row + 16 * n;
            store(to, add_ ? add(load(to), sums[i][n]) : sums[i][n]);
        }
}

template <bool TURNED>
void product(const float* a, ptrdiff_t stride, const float* b, ptrdiff_t b_row, int depth, int vectors, float* c,
             ptrdiff_t c_row, bool add_) {
    const ptrdiff_t row = TURNED ? 1 : stride, step = TURNED ? stride : 1;
    int n = 0;
    for (; n + COLUMNS <= vectors; n += COLUMNS)
        tile<COLUMNS>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
    if constexpr (COLUMNS > 1) {
        const int left = vectors - n;
        if (left == 3)
            tile<3>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
        else if (left == 2)
            tile<2>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
        else if (left == 1)
            tile<1>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
    }
}

// x[at] ... x[at + D - 1] as floats times `scale`, with zeros up to `width`; D is a multiple of 8
INLINE void to_floats(const void* x, size_t at, bool bf16, int D, F scale, float* out) {
    int d = 0;
    for (; d + 16 <= D; d += 16)
        store(out + d, mul(scale, bf16 ? load_bf16((const uint16_t*)x + at + d) : load((const float*)x + at + d)));
    if (d == D) return;
    float last[16] = {};
    for (int i = 0; i < 8; i++)
        last[i] = bf16 ? from_bf16(((const uint16_t*)x)[at + d + i]) : ((const float*)x)[at + d + i];
    store(out + d, mul(scale, load(last)));
}

// The inverse, rounded to the type. A NaN stays one: the low bits of those that come from bfloat16 are zeros.
INLINE void from_floats(const float* x, F scale, int D, void* out, size_t at, bool bf16) {
    int d = 0;
    for (; d + 16 <= D; d += 16) {
        const F v = mul(scale, load(x + d));
        if (bf16)
            store_bf16((uint16_t*)out + at + d, v);
        else
            store((float*)out + at + d, v);
    }
    if (d == D) return;
    alignas(64) float last[16];
    store(last, mul(scale, load(x + d)));
    for (int i = 0; i < 8; i++) {
        if (bf16)
            ((uint16_t*)out)[at + d + i] = to_bf16(last[i]);
        else
            ((float*)out)[at + d + i] = last[i];
    }
}

// x[count][width] -> out[width][PANEL], with zeros up to a multiple of 16 keys
inline void turn(const float* x, int width, int count, float* out) {
    const int end = (count + 15) / 16 * 16;
    for (int d = 0; d < width; d += 4)
        for (int key = 0; key < end; key += 4) {
            const float* from = x + key * width + d;
            const Four a = four(from), b = four(from + width), c = four(from + 2 * width), e = four(from + 3 * width);
            const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ce = __builtin_shufflevector(c, e, 0, 4, 1, 5);
            const Four AB = __builtin_shufflevector(a, b, 2, 6, 3, 7), CE = __builtin_shufflevector(c, e, 2, 6, 3, 7);
            const Four turned[4] = {
                __builtin_shufflevector(ab, ce, 0, 1, 4, 5), __builtin_shufflevector(ab, ce, 2, 3, 6, 7),
                __builtin_shufflevector(AB, CE, 0, 1, 4, 5), __builtin_shufflevector(AB, CE, 2, 3, 6, 7)};
            for (int i = 0; i < 4; i++) memcpy(out + (d + i) * PANEL + key, turned + i, 16);
        }
}

}  // namespace
}  // namespace RIYAZ_ISA
}  // namespace riyaz
