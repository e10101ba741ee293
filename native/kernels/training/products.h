// Small dense products with sums in float32, and the words that they read: what attention in training is made of.
#pragma once

#include "kernels/isa.h"
#include "simd/simd.h"
#include "training/attention_jobs.h"

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

// 16 words of S numbers, floats or pairs of bfloat16; one word in every lane; products of words, added in each lane
template <int S>
INLINE auto load_words(const float* words) {
    if constexpr (S == 2)
        return load_bytes(words);
    else
        return load(words);
}
template <int S>
INLINE auto spread_word(const float* word) {
    if constexpr (S == 2)
        return spread(word);
    else
        return set(*word);
}
INLINE F add_product(F sum, F x, F y) { return fma(x, y, sum); }
INLINE F add_product(F sum, B x, B y) { return dot_bf16(sum, x, y); }

// Adds to C (or sets it) the product of N rows of A, a[i * row + k * step], and C vectors of each row of B. A and B are
// words of S numbers, which stand beside each other along the axis over which is summed; `depth` counts words.
template <int S, int C, int N>
INLINE void tile(const float* a, ptrdiff_t row, ptrdiff_t step, const float* b, ptrdiff_t b_row, int depth, float* c,
                 ptrdiff_t c_row, bool add_) {
    F sums[N][C];
#pragma GCC unroll 6
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
        for (int n = 0; n < C; n++) sums[i][n] = zero();
    for (int k = 0; k < depth; k++, a += step, b += b_row) {
        decltype(load_words<S>(b)) columns[C];
#pragma GCC unroll 4
        for (int n = 0; n < C; n++) columns[n] = load_words<S>(b + 16 * n);
#pragma GCC unroll 6
        for (int i = 0; i < N; i++) {
            const auto x = spread_word<S>(a + i * row);
#pragma GCC unroll 4
            for (int n = 0; n < C; n++) sums[i][n] = add_product(sums[i][n], x, columns[n]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
        for (int n = 0; n < C; n++) {
            float* to = c + i * c_row + 16 * n;
            store(to, add_ ? add(load(to), sums[i][n]) : sums[i][n]);
        }
}

template <int S, bool TURNED, int N = TOGETHER>
void product(const float* a, ptrdiff_t stride, const float* b, ptrdiff_t b_row, int depth, int vectors, float* c,
             ptrdiff_t c_row, bool add_) {
    const ptrdiff_t row = TURNED ? 1 : stride, step = TURNED ? stride : 1;
    int n = 0;
    for (; n + COLUMNS <= vectors; n += COLUMNS)
        tile<S, COLUMNS, N>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
    if constexpr (COLUMNS > 1) {
        const int left = vectors - n;
        if (left == 3)
            tile<S, 3, N>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
        else if (left == 2)
            tile<S, 2, N>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
        else if (left == 1)
            tile<S, 1, N>(a, row, step, b + 16 * n, b_row, depth, c + 16 * n, c_row, add_);
    }
}

// x[at] ... x[at + D - 1] as floats, with zeros up to a multiple of 16; D is a multiple of 8
INLINE void to_floats(const void* x, size_t at, bool bf16, int D, float* out) {
    int d = 0;
    for (; d + 16 <= D; d += 16)
        store(out + d, bf16 ? load_bf16((const uint16_t*)x + at + d) : load((const float*)x + at + d));
    if (d == D) return;
    float last[16] = {};
    for (int i = 0; i < 8; i++)
        last[i] = bf16 ? from_bf16(((const uint16_t*)x)[at + d + i]) : ((const float*)x)[at + d + i];
    store(out + d, load(last));
}

// The same as words of S numbers; x is of bfloat16 where these are two
template <int S>
INLINE void to_words(const void* x, size_t at, bool bf16, int D, float* out) {
    if constexpr (S == 2) {
        const auto* from = (const uint16_t*)x + at;
        int d = 0;
        for (; d + 16 <= D; d += 16) memcpy(out + d / 2, from + d, 32);
        if (d < D) memset(out + d / 2, 0, 32), memcpy(out + d / 2, from + d, 16);
    } else {
        to_floats(x, at, bf16, D, out);
    }
}

// x[0] ... x[D - 1] times `scale`, rounded to the type, to out[at] and on. A NaN stays one: the low bits of those that
// come from bfloat16 are zeros.
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

// 32 numbers rounded to bfloat16, one after the other
INLINE B rounded(F first, F second) {
#if defined(__AVX512BF16__)
    return (B)_mm512_cvtne2ps_pbh(second, first);
#else
    uint16_t numbers[32];
    store_bf16(numbers, first), store_bf16(numbers + 16, second);
    return load_bytes(numbers);
#endif
}

// The same, one of the first and one of the second in each word
INLINE B paired(F first, F second) {
    alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
#if defined(__AVX512BF16__)
    return _mm512_permutexvar_epi16(_mm512_load_si512(order), rounded(first, second));
#else
    uint16_t numbers[32], pairs[32];
    store_bytes(numbers, rounded(first, second));
    for (int i = 0; i < 32; i++) pairs[i] = numbers[order[i]];
    return load_bytes(pairs);
#endif
}

// 16 numbers of bfloat16 of each of two lines, one of each in each word
INLINE B paired_lines(const uint16_t* first, const uint16_t* second) {
#if defined(__AVX512F__)
    const B low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)first));
    return low | _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)second)), 16);
#else
    return paired(load_bf16(first), load_bf16(second));
#endif
}

// bfloat16 x[count][width] -> words [count / 2][width] of two lines each; `count` is even
inline void two_together(const float* x, int count, int width, float* out) {
    const auto* numbers = (const uint16_t*)x;
    for (int r = 0; r < count; r += 2, numbers += 2 * width)
        for (int d = 0; d < width; d += 16)
            store_bytes(out + r / 2 * width + d, paired_lines(numbers + d, numbers + width + d));
}

// The first `keys` of x[count][PANEL] rounded: words [count][PANEL / 2] of two keys each
inline void round_lines(const float* x, int count, int keys, float* out) {
    for (int r = 0; r < count; r++)
        for (int at = r * PANEL; at < r * PANEL + keys; at += 32)
            store_bytes(out + at / 2, rounded(load(x + at), load(x + at + 16)));
}

// The same as words [count / 2][PANEL] of two lines each; `count` is even
inline void round_two(const float* x, int count, int keys, float* out) {
    for (int r = 0; r < count; r += 2)
        for (int at = 0; at < keys; at += 16)
            store_bytes(out + r / 2 * PANEL + at, paired(load(x + r * PANEL + at), load(x + (r + 1) * PANEL + at)));
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
