// 16 lanes in one register of AVX-512: included by simd/simd.h only.
#pragma once

namespace riyaz {
namespace RIYAZ_ISA {

constexpr int REGISTERS = 32;
using F = __m512;
using I = __m512i;
typedef int Sums __attribute__((vector_size(64)));  // that a loop adds to: of type I, GCC moves each at every step
using B = __m512i;                                  // 64 bytes

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
INLINE F sqrt(F a) { return _mm512_sqrt_ps(a); }
INLINE F abs(F a) { return _mm512_abs_ps(a); }
INLINE F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE F times_power_of_2(F a, F whole) { return _mm512_scalef_ps(a, whole); }
INLINE F select(uint32_t mask, F yes, F no) { return _mm512_mask_blend_ps(__mmask16(mask), no, yes); }
INLINE bool any_below(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ) != 0; }  // in some lane a <= b
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
INLINE F larger(F a, F b) {  // the larger |number| of each lane, NaN where one is NaN: as integers NaN is the largest
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(abs(a)), _mm512_castps_si512(abs(b))));
}
INLINE float size_of(F a, F b) {  // the largest |number| of all, NaN where one is NaN
    const int32_t word = _mm512_reduce_max_epi32(_mm512_castps_si512(larger(a, b)));
    float size;
    memcpy(&size, &word, 4);
    return size;
}
INLINE F load_half(const uint16_t* x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)x)); }
INLINE F load_u8(const uint8_t* x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)x)));
}
INLINE F load_i8(const int8_t* x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)x)));
}
INLINE F load_bf16(const uint16_t* x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16));
}
INLINE I rounded_bf16(F v) {  // the bits of v in bfloat16 (ties to even) in the low half of each lane
    const I w = _mm512_castps_si512(v);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(w, 16), _mm512_set1_epi32(1));
    return _mm512_srli_epi32(_mm512_add_epi32(w, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
}
INLINE void store_bf16(uint16_t* x, F v) { _mm256_storeu_si256((__m256i*)x, _mm512_cvtepi32_epi16(rounded_bf16(v))); }
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
INLINE void store_bytes(void* x, B v) { _mm512_storeu_si512(x, v); }
INLINE B spread(const void* x) {  // 4 bytes in every lane
    int32_t word;
    memcpy(&word, x, 4);
    return _mm512_set1_epi32(word);
}
// Word i of register j becomes word j of register i.
INLINE void turn_words(B (&w)[16]) {
    B t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2)
        t[i] = _mm512_unpacklo_epi32(w[i], w[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(w[i], w[i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        w[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]), w[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        w[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]), w[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {  // 0x88: the first and third quarters of both, 0xdd: the others
        t[i] = _mm512_shuffle_i32x4(w[i], w[i + 4], 0x88), t[i + 4] = _mm512_shuffle_i32x4(w[i], w[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(w[i + 8], w[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(w[i + 8], w[i + 12], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        w[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        w[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}
INLINE B low(B a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
INLINE B high(B a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
// Codes of 8 bits from their upper and lower halves: those of the low, and of the high, halves of the bytes
INLINE B whole_low(B upper, B lower) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(char(0xf0)), _mm512_slli_epi16(upper, 4), lower, 0xca);
}
INLINE B whole_high(B upper, B lower) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(char(0xf0)), upper, _mm512_srli_epi16(lower, 4), 0xca);
}
// The low 16 bits of each lane in both its halves
INLINE B doubled(I a) {
    const I low = _mm512_and_si512(a, _mm512_set1_epi32(0xffff));
    return _mm512_or_si512(low, _mm512_slli_epi32(low, 16));
}
// (byte * a + b) / 256 of every byte, with a and b of 16 bits, as long as the sum fits 16 bits
INLINE B scaled(B bytes, B a, B b) {
    const B even = _mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), odd = _mm512_srli_epi16(bytes, 8);
    const B low = _mm512_srli_epi16(_mm512_add_epi16(_mm512_mullo_epi16(even, a), b), 8);
    const B high = _mm512_add_epi16(_mm512_mullo_epi16(odd, a), b);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0xff), low, high, 0xca);
}
// Products of codes 0 ... 15 with signed bytes, 4 added in each lane
INLINE I dot_nibbles(I sum, B codes, B x) { return _mm512_dpbusd_epi32(sum, codes, x); }
// The same for codes 0 ... 255 that mean code - 128; the sum begins with BEGIN times the total of x
constexpr int32_t BEGIN = -128;
INLINE I dot_bytes(I sum, B codes, B x) { return _mm512_dpbusd_epi32(sum, codes, x); }
// Two bits of every byte, from bit N on: moved down, or left in place
template <int N>
INLINE B two_bits(B word) {
    return _mm512_and_si512(N ? _mm512_srli_epi16(word, N) : word, _mm512_set1_epi8(3));
}
template <int N>
INLINE B in_place(B word) {
    return _mm512_and_si512(word, _mm512_set1_epi8(char(3 << N)));
}
constexpr bool IN_PLACE = true;      // whether dot_small takes codes up to 192
constexpr int MOST_SMALL = 1 << 30;  // codes up to 2 that dot_small may add up before `settled`
INLINE I dot_small(I sum, B codes, B x) { return _mm512_dpbusd_epi32(sum, codes, x); }
INLINE I settled(I sum) { return sum; }
template <int N>
INLINE I halved(I a) {  // divided by 2^N without a rest
    return _mm512_srai_epi32(a, N);
}
INLINE I itimes(I a, I b) { return _mm512_mullo_epi32(a, b); }
INLINE I times_256(I a) { return _mm512_slli_epi32(a, 8); }
INLINE I isub(I a, I b) { return _mm512_sub_epi32(a, b); }
INLINE B byte_set(uint8_t x) { return _mm512_set1_epi8(char(x)); }
INLINE B byte_add(B a, B b) { return _mm512_add_epi8(a, b); }
INLINE B byte_sub(B a, B b) { return _mm512_sub_epi8(a, b); }
INLINE B byte_min(B a, B b) { return _mm512_min_epu8(a, b); }  // without a sign
// Products of pairs of bfloat16, added in each lane
INLINE F dot_bf16(F sum, B w, B x) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
#else
    return fma(second(w), second(x), fma(first(w), first(x), sum));
#endif
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
