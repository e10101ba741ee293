// 16 lanes in two registers of AVX2: included by simd/simd.h only.
#pragma once

namespace riyaz {
namespace RIYAZ_ISA {

constexpr int REGISTERS = 16;
struct F {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};
using Sums = I;
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
INLINE F sqrt(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
INLINE F abs(F x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
INLINE F floor(F x) { return {_mm256_floor_ps(x.a), _mm256_floor_ps(x.b)}; }
INLINE __m256 power8(__m256 whole) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
INLINE F times_power_of_2(F x, F whole) {
    return {_mm256_mul_ps(x.a, power8(whole.a)), _mm256_mul_ps(x.b, power8(whole.b))};
}
INLINE __m256 select8(uint32_t mask, __m256 yes, __m256 no) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(mask)), bits), bits);
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(on));
}
INLINE F select(uint32_t mask, F yes, F no) { return {select8(mask, yes.a, no.a), select8(mask >> 8, yes.b, no.b)}; }
INLINE bool any_below(F x, F y) {  // in some lane x <= y
    return _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ)) |
           _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ));
}
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
INLINE __m256 larger8(__m256 x, __m256 y) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(x), _mm256_castps_si256(y)));
}
INLINE F larger(F x, F y) {  // the larger |number| of each lane, NaN where one is NaN: as integers NaN is the largest
    const F a = abs(x), b = abs(y);
    return {larger8(a.a, b.a), larger8(a.b, b.b)};
}
INLINE float size_of(F x, F y) {  // the largest |number| of all, NaN where one is NaN
    const F all = larger(x, y);
    const __m256i h = _mm256_castps_si256(larger8(all.a, all.b));
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1))));
}
INLINE F load_half(const uint16_t* x) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x)),
            _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(x + 8)))};
}
INLINE F load_u8(const uint8_t* x) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)x))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(x + 8))))};
}
INLINE F load_i8(const int8_t* x) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)x))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(x + 8))))};
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
INLINE void store_bytes(void* x, B v) {
    _mm256_storeu_si256((__m256i*)x, v.a), _mm256_storeu_si256((__m256i*)x + 1, v.b);
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
// Codes of 8 bits from their upper and lower halves: those of the low, and of the high, halves of the bytes
INLINE __m256i select_halves(__m256i upper, __m256i lower) {
    const __m256i mask = _mm256_set1_epi8(char(0xf0));
    return _mm256_or_si256(_mm256_and_si256(mask, upper), _mm256_andnot_si256(mask, lower));
}
INLINE B whole_low(B upper, B lower) {
    return {select_halves(_mm256_slli_epi16(upper.a, 4), lower.a),
            select_halves(_mm256_slli_epi16(upper.b, 4), lower.b)};
}
INLINE B whole_high(B upper, B lower) {
    return {select_halves(upper.a, _mm256_srli_epi16(lower.a, 4)),
            select_halves(upper.b, _mm256_srli_epi16(lower.b, 4))};
}
INLINE B doubled(I x) {
    const __m256i mask = _mm256_set1_epi32(0xffff);
    const __m256i a = _mm256_and_si256(x.a, mask), b = _mm256_and_si256(x.b, mask);
    return {_mm256_or_si256(a, _mm256_slli_epi32(a, 16)), _mm256_or_si256(b, _mm256_slli_epi32(b, 16))};
}
INLINE __m256i scaled32(__m256i bytes, __m256i a, __m256i b) {
    const __m256i mask = _mm256_set1_epi16(0xff);
    const __m256i even = _mm256_and_si256(bytes, mask), odd = _mm256_srli_epi16(bytes, 8);
    const __m256i low = _mm256_srli_epi16(_mm256_add_epi16(_mm256_mullo_epi16(even, a), b), 8);
    const __m256i high = _mm256_add_epi16(_mm256_mullo_epi16(odd, a), b);
    return _mm256_or_si256(low, _mm256_andnot_si256(mask, high));
}
INLINE B scaled(B bytes, B a, B b) { return {scaled32(bytes.a, a.a, b.a), scaled32(bytes.b, a.b, b.b)}; }
// Two bits of every byte, from bit N on: moved down, or left in place
template <int N>
INLINE B two_bits(B word) {
    const __m256i mask = _mm256_set1_epi8(3);
    if (N == 0) return {_mm256_and_si256(word.a, mask), _mm256_and_si256(word.b, mask)};
    return {_mm256_and_si256(_mm256_srli_epi16(word.a, N), mask), _mm256_and_si256(_mm256_srli_epi16(word.b, N), mask)};
}
template <int N>
INLINE B in_place(B word) {
    const __m256i mask = _mm256_set1_epi8(char(3 << N));
    return {_mm256_and_si256(word.a, mask), _mm256_and_si256(word.b, mask)};
}
template <int N>
INLINE I halved(I x) {  // divided by 2^N without a rest
    return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)};
}
INLINE I itimes(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
INLINE I times_256(I x) { return {_mm256_slli_epi32(x.a, 8), _mm256_slli_epi32(x.b, 8)}; }
INLINE I isub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
INLINE B byte_set(uint8_t x) { return {_mm256_set1_epi8(char(x)), _mm256_set1_epi8(char(x))}; }
INLINE B byte_add(B x, B y) { return {_mm256_add_epi8(x.a, y.a), _mm256_add_epi8(x.b, y.b)}; }
INLINE B byte_sub(B x, B y) { return {_mm256_sub_epi8(x.a, y.a), _mm256_sub_epi8(x.b, y.b)}; }
INLINE B byte_min(B x, B y) { return {_mm256_min_epu8(x.a, y.a), _mm256_min_epu8(x.b, y.b)}; }
#if defined(__AVXVNNI__)
INLINE I dot_nibbles(I sum, B w, B x) {
    return {_mm256_dpbusd_avx_epi32(sum.a, w.a, x.a), _mm256_dpbusd_avx_epi32(sum.b, w.b, x.b)};
}
constexpr int32_t BEGIN = -128;
INLINE I dot_bytes(I sum, B w, B x) { return dot_nibbles(sum, w, x); }
constexpr bool IN_PLACE = true;      // whether dot_small takes codes up to 192
constexpr int MOST_SMALL = 1 << 30;  // codes up to 2 that dot_small may add up before `settled`
INLINE I dot_small(I sum, B w, B x) { return dot_nibbles(sum, w, x); }
INLINE I settled(I sum) { return sum; }
#else
INLINE __m256i pairs_added(__m256i products) { return _mm256_madd_epi16(products, _mm256_set1_epi16(1)); }
INLINE I dot_nibbles(I sum, B w, B x) {  // 2 * 15 * 127 fits 16 bits
    return {_mm256_add_epi32(sum.a, pairs_added(_mm256_maddubs_epi16(w.a, x.a))),
            _mm256_add_epi32(sum.b, pairs_added(_mm256_maddubs_epi16(w.b, x.b)))};
}
// Codes up to 2, added up in lanes of 16 bits: 64 * 2 * 2 * 127 fits these
constexpr bool IN_PLACE = false;
constexpr int MOST_SMALL = 64;
INLINE I dot_small(I sum, B w, B x) {
    return {_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(w.a, x.a)),
            _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(w.b, x.b))};
}
INLINE I settled(I sum) { return {pairs_added(sum.a), pairs_added(sum.b)}; }
constexpr int32_t BEGIN = 0;
INLINE __m256i dot8(__m256i codes, __m256i x) {  // |w| ≤ 128 times ± x: 2 * 128 * 127 fits 16 bits
    const __m256i w = _mm256_xor_si256(codes, _mm256_set1_epi8(char(0x80)));
    return pairs_added(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
}
INLINE I dot_bytes(I sum, B w, B x) {
    return {_mm256_add_epi32(sum.a, dot8(w.a, x.a)), _mm256_add_epi32(sum.b, dot8(w.b, x.b))};
}
#endif
INLINE F dot_bf16(F sum, B w, B x) { return fma(second(w), second(x), fma(first(w), first(x), sum)); }

}  // namespace RIYAZ_ISA
}  // namespace riyaz
