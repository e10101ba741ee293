// AMX's tile registers: eight tiles of 16 rows of 64 bytes.
#pragma once

#include "simd/simd.h"

#if defined(__AMX_TILE__)

namespace riyaz {
namespace RIYAZ_ISA {

// At the start of every kernel that uses tiles: other libraries in this process, such as torch, set them up
// differently.
INLINE void configure_tiles() {
    struct {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
}

// Between what is written to memory and `_tile_loadd` of it, which does not tell GCC 12 that it reads memory.
INLINE void written() { asm volatile("" ::: "memory"); }

// Sums of 2 x 2 tiles: 32 lines of 32 columns, `row` floats from one line to the next, in tiles 0 ... 3
INLINE void zero_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
INLINE void load_sums(const float* from, size_t row) {
    written();
    _tile_loadd(0, from, row * 4);
    _tile_loadd(1, from + 16, row * 4);
    _tile_loadd(2, from + 16 * row, row * 4);
    _tile_loadd(3, from + 16 * row + 16, row * 4);
}
INLINE void store_sums(float* to, size_t row) {
    _tile_stored(0, to, row * 4);
    _tile_stored(1, to + 16, row * 4);
    _tile_stored(2, to + 16 * row, row * 4);
    _tile_stored(3, to + 16 * row + 16, row * 4);
}

constexpr float LOG2_E = 1.44269504088896341f;

// 2^x to 2e-7: the fraction by a polynomial of degree 5; zero far below
INLINE __m512 exp2(__m512 x) {
    const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = set(1.8775767e-3f);
    p = fma(p, r, set(8.9893397e-3f));
    p = fma(p, r, set(5.5826318e-2f));
    p = fma(p, r, set(2.4015361e-1f));
    p = fma(p, r, set(6.9315308e-1f));
    p = fma(p, r, set(9.9999994e-1f));
    return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}

// 16 numbers rounded to bfloat16
INLINE void store_rounded(uint16_t* x, F v) { _mm256_storeu_si256((__m256i*)x, (__m256i)_mm512_cvtneps_pbh(v)); }

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
