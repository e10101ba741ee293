// The kernels of one instruction set, in the namespace RIYAZ_ISA, and what their files share.
#pragma once

#include "kernels/kernels.h"
#include "simd/simd.h"

// How products with many tokens are computed: AVX2 alone has no quick product of 8 bits.
#if defined(__AMX_BF16__)
#define RIYAZ_TILES
#elif !defined(__AVX2__) || defined(__AVXVNNI__) || defined(__AVX512VNNI__)
#define RIYAZ_CODES
#endif

namespace riyaz {
namespace RIYAZ_ISA {

// Whether training multiplies pairs of bfloat16 in vectors: quicker on AMD's, slower on Intel's (docs/log.md)
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define RIYAZ_PAIRS
constexpr bool QUICK_PAIRS = true;
#else
constexpr bool QUICK_PAIRS = false;
#endif

constexpr size_t AHEAD = 12 * 1024;  // bytes that weights are prefetched before they are used

// Where to prefetch while the block at `at` is read: further on, or where the thread reads after `end`.
INLINE const uint8_t* ahead(const uint8_t* at, const uint8_t* end, const uint8_t* next) {
    const uint8_t* far = at + AHEAD;
    return far < end || !next ? far : next + (far - end);
}

INLINE int min_of(int a, int b) { return a < b ? a : b; }

INLINE F activated(F x, Activation activation) {
    if (activation == Activation::relu2) return mul(max(x, zero()), x);
    return activation == Activation::silu ? silu(x) : gelu_tanh(x);
}

// 16 results, of which the first `count` are rows of the matrix
INLINE void put(float* y, F v, int count, bool add_) {
    if (count >= ROWS) return store(y, add_ ? add(load(y), v) : v);
    float part[ROWS];
    store(part, v);
    for (int i = 0; i < count; i++) y[i] = add_ ? y[i] + part[i] : part[i];
}

#define KERNEL(RESULT, NAME, ARGUMENTS) RESULT NAME ARGUMENTS;
#include "kernels/kernels.inc"
const Kernels& table();

// What `few_tokens` and `few_tokens_gated` leave to few_tokens_unpacked.cpp: return the first block that these still
// have to compute.
int few_tokens_unpacked(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
                        void* scratch);
int few_tokens_gated_unpacked(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                              const Inputs& x, int T, float* y, size_t stride, void* scratch);
// `row` of ternary weights
void ternary_row(const Weights& w, int row, float* out);

}  // namespace RIYAZ_ISA
}  // namespace riyaz
