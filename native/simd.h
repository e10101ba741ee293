// 16 floats, 16 int32 or 64 bytes as one value, on every instruction set: kernels are written once with these.
//
// Everything here is static: a function with external linkage, compiled for several instruction sets, could be merged by
// the linker into one that the CPU at hand does not have. For the same reason kernels use no templates of the standard
// library.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
// NOLINTBEGIN
namespace riyaz {
namespace RIYAZ_ISA {

INLINE float half(uint16_t bits) {  // half precision to float, in integers
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    uint32_t word;
    if (exponent == 31) word = 0x7f800000 | fraction << 13;
    else if (exponent) word = (exponent + 112) << 23 | fraction << 13;
    else {
        float tiny = float(fraction) * 0x1p-24f;
        memcpy(&word, &tiny, 4);
    }
    word |= sign;
    float value;
    memcpy(&value, &word, 4);
    return value;
}
INLINE float from_bf16(uint16_t bits) {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}
INLINE uint16_t to_bf16(float value) {  // ties to even
    uint32_t word;
    memcpy(&word, &value, 4);
    if ((word & 0x7fffffff) > 0x7f800000) return uint16_t(word >> 16 | 64);
    return uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
}
INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

#if defined(__AVX512F__)

constexpr int REGISTERS = 32;
using F = __m512;
using I = __m512i;
using B = __m512i;  // 64 bytes

INLINE F zero() { return _mm512_setzero_ps(); }
INLINE F set(float x) { return _mm512_set1_ps(x); }
INLINE F load(const float* x) { return _mm512_loadu_ps(x); }
INLINE void store(float* x, F v) { _mm512_storeu_ps(x, v); }
INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
INLINE F abs(F a) { return _mm512_abs_ps(a); }
INLINE F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE F power_of_2(F whole) {  // 2^whole
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127)), 23));
}
INLINE F select(uint32_t mask, F yes, F no) { return _mm512_mask_blend_ps(__mmask16(mask), no, yes); }
INLINE float sum_of(F a) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 p = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(p, _mm_movehdup_ps(p)));
}
INLINE float max_of(F a) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 p = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(p, _mm_movehdup_ps(p)));
}
INLINE float size_of(F a, F b) {  // the largest |number|, NaN where one is NaN: as integers NaN is the largest
    const I sizes = _mm512_max_epi32(_mm512_castps_si512(abs(a)), _mm512_castps_si512(abs(b)));
    const int32_t word = _mm512_reduce_max_epi32(sizes);
    float size;
    memcpy(&size, &word, 4);
    return size;
}
INLINE F load_half(const uint16_t* x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)x)); }
INLINE F load_u8(const uint8_t* x) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)x))); }
INLINE F load_bf16(const uint16_t* x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16));
}
INLINE I rounded_bf16(F v) {  // the bits of v in bfloat16 (ties to even) in the low half of each lane
    const I w = _mm512_castps_si512(v);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(w, 16), _mm512_set1_epi32(1));
    return _mm512_srli_epi32(_mm512_add_epi32(w, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
}
INLINE void store_bf16(uint16_t* x, F v) {
    _mm256_storeu_si256((__m256i*)x, _mm512_cvtepi32_epi16(rounded_bf16(v)));
}
// Pairs of bfloat16 in 16 lanes: the first and the second of each
INLINE F first(B pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
INLINE F second(B pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000)))); }

INLINE I izero() { return _mm512_setzero_si512(); }
INLINE I iset(int32_t x) { return _mm512_set1_epi32(x); }
INLINE F to_float(I a) { return _mm512_cvtepi32_ps(a); }
INLINE I to_int(F a) { return _mm512_cvtps_epi32(a); }
INLINE int32_t isum_of(I a) { return _mm512_reduce_add_epi32(a); }
INLINE I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
INLINE void store_i8(int8_t* x, I a) { _mm_storeu_si128((__m128i*)x, _mm512_cvtepi32_epi8(a)); }

INLINE B load_bytes(const void* x) { return _mm512_loadu_si512(x); }
INLINE B spread(const void* x) {  // 4 bytes in every lane
    int32_t word;
    memcpy(&word, x, 4);
    return _mm512_set1_epi32(word);
}
INLINE B low(B a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
INLINE B high(B a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
// Products of codes 0 ... 15 with signed bytes, 4 added in each lane
INLINE I dot_nibbles(I sum, B codes, B x) { return _mm512_dpbusd_epi32(sum, codes, x); }
// The same for codes 0 ... 255 that mean code - 128; the sum begins with begin_bytes(total of x)
INLINE I begin_bytes(int32_t total) { return _mm512_set1_epi32(-128 * total); }
INLINE I dot_bytes(I sum, B codes, B x) { return _mm512_dpbusd_epi32(sum, codes, x); }
// Products of pairs of bfloat16, added in each lane
INLINE F dot_bf16(F sum, B w, B x) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
#else
    return fma(second(w), second(x), fma(first(w), first(x), sum));
#endif
}

#elif defined(__AVX2__)

constexpr int REGISTERS = 16;
struct F {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};
using B = I;

INLINE F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE F load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
INLINE void store(float* x, F v) { _mm256_storeu_ps(x, v.a), _mm256_storeu_ps(x + 8, v.b); }
INLINE F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
INLINE F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE F abs(F x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
INLINE F floor(F x) { return {_mm256_floor_ps(x.a), _mm256_floor_ps(x.b)}; }
INLINE F power_of_2(F x) {
    const __m256i bias = _mm256_set1_epi32(127);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(x.a), bias), 23)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(x.b), bias), 23))};
}
INLINE __m256 select8(uint32_t mask, __m256 yes, __m256 no) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(mask)), bits), bits);
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(on));
}
INLINE F select(uint32_t mask, F yes, F no) { return {select8(mask, yes.a, no.a), select8(mask >> 8, yes.b, no.b)}; }
INLINE float sum_of(F x) {
    const __m256 h = _mm256_add_ps(x.a, x.b);
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 p = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(p, _mm_movehdup_ps(p)));
}
INLINE float max_of(F x) {
    const __m256 h = _mm256_max_ps(x.a, x.b);
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 p = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(p, _mm_movehdup_ps(p)));
}
INLINE float size_of(F x, F y) {  // the largest |number|, NaN where one is NaN: as integers NaN is the largest
    const F a = abs(x), b = abs(y);
    const __m256i h = _mm256_max_epi32(_mm256_max_epi32(_mm256_castps_si256(a.a), _mm256_castps_si256(a.b)),
                                       _mm256_max_epi32(_mm256_castps_si256(b.a), _mm256_castps_si256(b.b)));
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1))));
}
INLINE F load_half(const uint16_t* x) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(x + 8)))};
}
INLINE F load_u8(const uint8_t* x) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)x))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(x + 8))))};
}
INLINE __m256 widened(const uint16_t* x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x)), 16));
}
INLINE F load_bf16(const uint16_t* x) { return {widened(x), widened(x + 8)}; }
INLINE __m256i rounded8(__m256 v) {
    const __m256i w = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(w, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(w, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
INLINE I rounded_bf16(F v) { return {rounded8(v.a), rounded8(v.b)}; }
INLINE void store_bf16(uint16_t* x, F v) {
    const I r = rounded_bf16(v);
    _mm256_storeu_si256((__m256i*)x, _mm256_permute4x64_epi64(_mm256_packus_epi32(r.a, r.b), 0xd8));
}
INLINE F first(B p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(p.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(p.b, 16))};
}
INLINE F second(B p) {
    const __m256i upper = _mm256_set1_epi32(int(0xffff0000));
    return {_mm256_castsi256_ps(_mm256_and_si256(p.a, upper)), _mm256_castsi256_ps(_mm256_and_si256(p.b, upper))};
}

INLINE I izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE I iset(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
INLINE I iadd(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
INLINE int32_t isum_of(I x) {
    const __m256i h = _mm256_add_epi32(x.a, x.b);
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}
INLINE void store_i8(int8_t* x, I v) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i*)x, bytes);
}

INLINE B load_bytes(const void* x) {
    return {_mm256_loadu_si256((const __m256i*)x), _mm256_loadu_si256((const __m256i*)x + 1)};
}
INLINE B spread(const void* x) {
    int32_t word;
    memcpy(&word, x, 4);
    return iset(word);
}
INLINE B low(B x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
INLINE B high(B x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(_mm256_srli_epi16(x.a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(x.b, 4), mask)};
}
#if defined(__AVXVNNI__)
INLINE I dot_nibbles(I sum, B w, B x) {
    return {_mm256_dpbusd_avx_epi32(sum.a, w.a, x.a), _mm256_dpbusd_avx_epi32(sum.b, w.b, x.b)};
}
INLINE I begin_bytes(int32_t total) { return iset(-128 * total); }
INLINE I dot_bytes(I sum, B w, B x) { return dot_nibbles(sum, w, x); }
#else
INLINE __m256i pairs_added(__m256i products) { return _mm256_madd_epi16(products, _mm256_set1_epi16(1)); }
INLINE I dot_nibbles(I sum, B w, B x) {  // 2 * 15 * 127 fits 16 bits
    return {_mm256_add_epi32(sum.a, pairs_added(_mm256_maddubs_epi16(w.a, x.a))),
            _mm256_add_epi32(sum.b, pairs_added(_mm256_maddubs_epi16(w.b, x.b)))};
}
INLINE I begin_bytes(int32_t) { return izero(); }
INLINE __m256i dot8(__m256i codes, __m256i x) {  // |w| ≤ 128 times ± x: 2 * 128 * 127 fits 16 bits
    const __m256i w = _mm256_xor_si256(codes, _mm256_set1_epi8(char(0x80)));
    return pairs_added(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
}
INLINE I dot_bytes(I sum, B w, B x) {
    return {_mm256_add_epi32(sum.a, dot8(w.a, x.a)), _mm256_add_epi32(sum.b, dot8(w.b, x.b))};
}
#endif
INLINE F dot_bf16(F sum, B w, B x) { return fma(second(w), second(x), fma(first(w), first(x), sum)); }

#else  // any CPU: plain loops over 16 lanes, which the compiler may vectorise

constexpr int REGISTERS = 1;  // none to speak of
struct F {
    float v[16];
};
struct I {
    int32_t v[16];
};
struct B {
    uint8_t v[64];
};
#define LANES for (int i = 0; i < 16; i++)

INLINE F set(float x) { F r; LANES r.v[i] = x; return r; }
INLINE F zero() { return set(0); }
INLINE F load(const float* x) { F r; memcpy(r.v, x, 64); return r; }
INLINE void store(float* x, F v) { memcpy(x, v.v, 64); }
INLINE F add(F a, F b) { LANES a.v[i] += b.v[i]; return a; }
INLINE F sub(F a, F b) { LANES a.v[i] -= b.v[i]; return a; }
INLINE F mul(F a, F b) { LANES a.v[i] *= b.v[i]; return a; }
INLINE F div(F a, F b) { LANES a.v[i] /= b.v[i]; return a; }
INLINE F fma(F a, F b, F c) { LANES c.v[i] += a.v[i] * b.v[i]; return c; }
INLINE F max(F a, F b) { LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
INLINE F min(F a, F b) { LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
INLINE F abs(F a) { LANES a.v[i] = __builtin_fabsf(a.v[i]); return a; }
INLINE F floor(F a) { LANES a.v[i] = __builtin_floorf(a.v[i]); return a; }
INLINE F power_of_2(F a) {
    LANES {
        const int32_t word = (int32_t(a.v[i]) + 127) << 23;
        memcpy(&a.v[i], &word, 4);
    }
    return a;
}
INLINE F select(uint32_t mask, F yes, F no) { LANES no.v[i] = mask >> i & 1 ? yes.v[i] : no.v[i]; return no; }
INLINE float sum_of(F a) {  // in the order of the vector units: halves, quarters, ...
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) a.v[i] += a.v[i + n];
    return a.v[0];
}
INLINE float max_of(F a) { float m = a.v[0]; LANES m = m > a.v[i] ? m : a.v[i]; return m; }
INLINE float size_of(F a, F b) {  // the largest |number|, NaN where one is NaN: as integers NaN is the largest
    int32_t p[16], q[16], word = 0;
    const F one = abs(a), two = abs(b);
    memcpy(p, one.v, 64), memcpy(q, two.v, 64);
    LANES {
        const int32_t larger = p[i] > q[i] ? p[i] : q[i];
        word = word > larger ? word : larger;
    }
    float size;
    memcpy(&size, &word, 4);
    return size;
}
INLINE F load_half(const uint16_t* x) { F r; LANES r.v[i] = half(x[i]); return r; }
INLINE F load_u8(const uint8_t* x) { F r; LANES r.v[i] = x[i]; return r; }
INLINE F load_bf16(const uint16_t* x) { F r; LANES r.v[i] = from_bf16(x[i]); return r; }
INLINE I rounded_bf16(F v) { I r; LANES r.v[i] = to_bf16(v.v[i]); return r; }
INLINE void store_bf16(uint16_t* x, F v) { LANES x[i] = to_bf16(v.v[i]); }
INLINE uint16_t word16(const B& p, int i) { uint16_t w; memcpy(&w, p.v + 2 * i, 2); return w; }
INLINE F first(B p) { F r; LANES r.v[i] = from_bf16(word16(p, 2 * i)); return r; }
INLINE F second(B p) { F r; LANES r.v[i] = from_bf16(word16(p, 2 * i + 1)); return r; }

INLINE I iset(int32_t x) { I r; LANES r.v[i] = x; return r; }
INLINE I izero() { return iset(0); }
INLINE F to_float(I a) { F r; LANES r.v[i] = float(a.v[i]); return r; }
INLINE I to_int(F a) { I r; LANES r.v[i] = int32_t(__builtin_rintf(a.v[i])); return r; }
INLINE I iadd(I a, I b) { LANES a.v[i] += b.v[i]; return a; }
INLINE int32_t isum_of(I a) { int32_t s = 0; LANES s += a.v[i]; return s; }
INLINE void store_i8(int8_t* x, I a) { LANES x[i] = int8_t(a.v[i]); }

INLINE B load_bytes(const void* x) { B r; memcpy(r.v, x, 64); return r; }
INLINE B spread(const void* x) { B r; LANES memcpy(r.v + 4 * i, x, 4); return r; }
INLINE B low(B a) { for (auto& v : a.v) v &= 15; return a; }
INLINE B high(B a) { for (auto& v : a.v) v >>= 4; return a; }
INLINE I begin_bytes(int32_t) { return izero(); }
INLINE I dot_nibbles(I sum, B w, B x) {
#if defined(__ARM_FEATURE_DOTPROD)
    for (int i = 0; i < 4; i++)
        vst1q_s32(sum.v + 4 * i, vdotq_s32(vld1q_s32(sum.v + 4 * i), vreinterpretq_s8_u8(vld1q_u8(w.v + 16 * i)),
                                           vreinterpretq_s8_u8(vld1q_u8(x.v + 16 * i))));
#else
    LANES for (int j = 0; j < 4; j++) sum.v[i] += w.v[4 * i + j] * int8_t(x.v[4 * i + j]);
#endif
    return sum;
}
INLINE I dot_bytes(I sum, B w, B x) {
    for (auto& v : w.v) v ^= 0x80;
#if defined(__ARM_FEATURE_DOTPROD)
    return dot_nibbles(sum, w, x);
#else
    LANES for (int j = 0; j < 4; j++) sum.v[i] += int8_t(w.v[4 * i + j]) * int8_t(x.v[4 * i + j]);
    return sum;
#endif
}
INLINE F dot_bf16(F sum, B w, B x) { return fma(second(w), second(x), fma(first(w), first(x), sum)); }
#undef LANES

#endif

// e^x to 2 units in the last place, by range reduction and a polynomial of degree 6 (coefficients of Cephes' expf).
INLINE F exp(F x) {
    x = max(set(-87.0f), min(set(88.0f), x));  // in this order a NaN stays one
    const F n = floor(fma(x, set(1.44269504088896341f), set(0.5f)));
    F r = fma(n, set(-0.693359375f), x);
    r = fma(n, set(2.12194440e-4f), r);
    F p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    p = add(fma(p, mul(r, r), r), set(1.0f));
    return mul(p, power_of_2(n));
}
INLINE F silu(F x) { return div(x, add(set(1.0f), exp(sub(zero(), x)))); }
INLINE F gelu_tanh(F x) {  // 0.5 x (1 + tanh(u)) = x / (1 + e^(-2 u))
    const F u = mul(mul(set(0.7978845608028654f), x), fma(mul(x, x), set(0.044715f), set(1.0f)));
    return div(x, add(set(1.0f), exp(mul(set(-2.0f), u))));
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
// NOLINTEND
