// 16 lanes in four registers of NEON, with dot products of bytes: included by simd/simd.h only.
#pragma once

namespace riyaz {
namespace RIYAZ_ISA {

constexpr int REGISTERS = 16;  // there are 32, of half the size of AVX2's: as many values of 16 lanes as there
struct F {
    float32x4_t a, b, c, d;
};
struct I {
    int32x4_t a, b, c, d;
};
using Sums = I;
struct B {
    uint8x16_t a, b, c, d;
};
// f of each register of a value, or of the registers of two and three values
#define EACH(f, x) {f(x.a), f(x.b), f(x.c), f(x.d)}
#define EACH2(f, x, y) {f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)}
#define EACH3(f, x, y, z) {f(x.a, y.a, z.a), f(x.b, y.b, z.b), f(x.c, y.c, z.c), f(x.d, y.d, z.d)}

INLINE F set(float x) {
    const float32x4_t q = vdupq_n_f32(x);
    return {q, q, q, q};
}
INLINE F zero() { return set(0); }
INLINE F load(const float* x) { return {vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12)}; }
INLINE void store(float* x, F v) {
    vst1q_f32(x, v.a), vst1q_f32(x + 4, v.b), vst1q_f32(x + 8, v.c), vst1q_f32(x + 12, v.d);
}
INLINE F add(F x, F y) { return EACH2(vaddq_f32, x, y); }
INLINE F sub(F x, F y) { return EACH2(vsubq_f32, x, y); }
INLINE F mul(F x, F y) { return EACH2(vmulq_f32, x, y); }
INLINE F div(F x, F y) { return EACH2(vdivq_f32, x, y); }
INLINE F fma(F x, F y, F z) { return EACH3(vfmaq_f32, z, x, y); }
// NEON's own max and min keep every NaN; these give y where one of the two is a NaN, as elsewhere.
INLINE float32x4_t max4(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
INLINE float32x4_t min4(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
INLINE F max(F x, F y) { return EACH2(max4, x, y); }
INLINE F min(F x, F y) { return EACH2(min4, x, y); }
INLINE F sqrt(F x) { return EACH(vsqrtq_f32, x); }
INLINE F abs(F x) { return EACH(vabsq_f32, x); }
INLINE F floor(F x) { return EACH(vrndmq_f32, x); }
INLINE float32x4_t power4(float32x4_t whole) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(whole), vdupq_n_s32(127)), 23));
}
INLINE F times_power_of_2(F x, F whole) { return mul(x, EACH(power4, whole)); }
INLINE float32x4_t select4(uint32_t mask, float32x4_t yes, float32x4_t no) {
    const uint32_t bits[4] = {1, 2, 4, 8};
    return vbslq_f32(vtstq_u32(vdupq_n_u32(mask), vld1q_u32(bits)), yes, no);
}
INLINE F select(uint32_t mask, F yes, F no) {
    return {select4(mask, yes.a, no.a), select4(mask >> 4, yes.b, no.b), select4(mask >> 8, yes.c, no.c),
            select4(mask >> 12, yes.d, no.d)};
}
INLINE bool any_below(F x, F y) {  // in some lane x <= y
    const uint32x4_t left = vorrq_u32(vcleq_f32(x.a, y.a), vcleq_f32(x.b, y.b));
    const uint32x4_t right = vorrq_u32(vcleq_f32(x.c, y.c), vcleq_f32(x.d, y.d));
    return vmaxvq_u32(vorrq_u32(left, right)) != 0;
}
INLINE float sum_of(F x) {  // halves, quarters, ..., as elsewhere
    const float32x4_t q = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    return vpadds_f32(vadd_f32(vget_low_f32(q), vget_high_f32(q)));
}
INLINE float max_of(F x) { return vmaxnmvq_f32(max4(max4(x.a, x.c), max4(x.b, x.d))); }
INLINE float32x4_t larger4(float32x4_t x, float32x4_t y) {
    return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_f32(vabsq_f32(x)), vreinterpretq_s32_f32(vabsq_f32(y))));
}
INLINE F larger(F x, F y) {  // the larger |number| of each lane, NaN where one is NaN: as integers NaN is the largest
    return EACH2(larger4, x, y);
}
INLINE float size_of(F x, F y) {  // the largest |number| of all, NaN where one is NaN
    const F sizes = larger(x, y);
    const int32_t word =
        vmaxvq_s32(vreinterpretq_s32_f32(larger4(larger4(sizes.a, sizes.b), larger4(sizes.c, sizes.d))));
    float size;
    memcpy(&size, &word, 4);
    return size;
}
INLINE float32x4_t half4(const uint16_t* x) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
INLINE F load_half(const uint16_t* x) { return {half4(x), half4(x + 4), half4(x + 8), half4(x + 12)}; }
INLINE F load_u8(const uint8_t* x) {
    const uint8x16_t bytes = vld1q_u8(x);
    const uint16x8_t p = vmovl_u8(vget_low_u8(bytes)), q = vmovl_high_u8(bytes);
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(p))), vcvtq_f32_u32(vmovl_high_u16(p)),
            vcvtq_f32_u32(vmovl_u16(vget_low_u16(q))), vcvtq_f32_u32(vmovl_high_u16(q))};
}
INLINE F load_i8(const int8_t* x) {
    const int8x16_t bytes = vld1q_s8(x);
    const int16x8_t p = vmovl_s8(vget_low_s8(bytes)), q = vmovl_high_s8(bytes);
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(p))), vcvtq_f32_s32(vmovl_high_s16(p)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), vcvtq_f32_s32(vmovl_high_s16(q))};
}
INLINE float32x4_t widened(const uint16_t* x) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(x), 16)); }
INLINE F load_bf16(const uint16_t* x) { return {widened(x), widened(x + 4), widened(x + 8), widened(x + 12)}; }
INLINE uint16x4_t rounded4(float32x4_t x) {  // ties to even; the upper halves of the sums
    const uint32x4_t w = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(w, 16), vdupq_n_u32(1));
    return vaddhn_u32(w, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
}
INLINE void store_bf16(uint16_t* x, F v) {
    vst1q_u16(x, vcombine_u16(rounded4(v.a), rounded4(v.b)));
    vst1q_u16(x + 8, vcombine_u16(rounded4(v.c), rounded4(v.d)));
}
INLINE float32x4_t first4(uint8x16_t pairs) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(pairs), 16));
}
INLINE float32x4_t second4(uint8x16_t pairs) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(pairs), vdupq_n_u32(0xffff0000)));
}
INLINE F first(B pairs) { return EACH(first4, pairs); }
INLINE F second(B pairs) { return EACH(second4, pairs); }

INLINE I iset(int32_t x) {
    const int32x4_t q = vdupq_n_s32(x);
    return {q, q, q, q};
}
INLINE I izero() { return iset(0); }
INLINE F to_float(I x) { return EACH(vcvtq_f32_s32, x); }
INLINE I to_int(F x) { return EACH(vcvtnq_s32_f32, x); }
INLINE I iadd(I x, I y) { return EACH2(vaddq_s32, x, y); }
INLINE int32_t isum_of(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d))); }
INLINE void store_i8(int8_t* x, I v) {
    const int16x8_t p = vcombine_s16(vmovn_s32(v.a), vmovn_s32(v.b)), q = vcombine_s16(vmovn_s32(v.c), vmovn_s32(v.d));
    vst1q_s8(x, vcombine_s8(vmovn_s16(p), vmovn_s16(q)));
}

INLINE B load_bytes(const void* x) {
    const uint8_t* bytes = (const uint8_t*)x;
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)};
}
INLINE void store_bytes(void* x, B v) {
    uint8_t* bytes = (uint8_t*)x;
    vst1q_u8(bytes, v.a), vst1q_u8(bytes + 16, v.b), vst1q_u8(bytes + 32, v.c), vst1q_u8(bytes + 48, v.d);
}
INLINE B spread(const void* x) {
    uint32_t word;
    memcpy(&word, x, 4);
    const uint8x16_t q = vreinterpretq_u8_u32(vdupq_n_u32(word));
    return {q, q, q, q};
}
INLINE uint8x16_t low4(uint8x16_t x) { return vandq_u8(x, vdupq_n_u8(15)); }
INLINE uint8x16_t high4(uint8x16_t x) { return vshrq_n_u8(x, 4); }
INLINE B low(B x) { return EACH(low4, x); }
INLINE B high(B x) { return EACH(high4, x); }
// Codes of 8 bits from their upper and lower halves: those of the low, and of the high, halves of the bytes
INLINE uint8x16_t whole_low4(uint8x16_t upper, uint8x16_t lower) { return vsliq_n_u8(lower, upper, 4); }
INLINE uint8x16_t whole_high4(uint8x16_t upper, uint8x16_t lower) { return vsriq_n_u8(upper, lower, 4); }
INLINE B whole_low(B upper, B lower) { return EACH2(whole_low4, upper, lower); }
INLINE B whole_high(B upper, B lower) { return EACH2(whole_high4, upper, lower); }

INLINE uint8x16_t doubled4(int32x4_t x) {
    const uint16x8_t words = vreinterpretq_u16_s32(x);
    return vreinterpretq_u8_u16(vtrn1q_u16(words, words));
}
INLINE B doubled(I x) { return EACH(doubled4, x); }
INLINE uint8x16_t scaled4(uint8x16_t bytes, uint8x16_t a, uint8x16_t b) {
    const uint16x8_t words = vreinterpretq_u16_u8(bytes), even = vandq_u16(words, vdupq_n_u16(0xff));
    const uint16x8_t factor = vreinterpretq_u16_u8(a), offset = vreinterpretq_u16_u8(b);
    const uint16x8_t low = vmlaq_u16(offset, even, factor), high = vmlaq_u16(offset, vshrq_n_u16(words, 8), factor);
    return vreinterpretq_u8_u16(vsriq_n_u16(high, low, 8));
}
INLINE B scaled(B bytes, B a, B b) { return EACH3(scaled4, bytes, a, b); }
INLINE int32x4_t dot4(int32x4_t sum, uint8x16_t w, uint8x16_t x) {
    return vdotq_s32(sum, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
}
INLINE I dot_nibbles(I sum, B w, B x) { return EACH3(dot4, sum, w, x); }
#if defined(__ARM_FEATURE_MATMUL_INT8)  // products of bytes without a sign and bytes with one
INLINE int32x4_t dot_bytes4(int32x4_t sum, uint8x16_t w, uint8x16_t x) {
    return vusdotq_s32(sum, w, vreinterpretq_s8_u8(x));
}
constexpr int32_t BEGIN = -128;
#else
INLINE int32x4_t dot_bytes4(int32x4_t sum, uint8x16_t w, uint8x16_t x) {
    return dot4(sum, veorq_u8(w, vdupq_n_u8(0x80)), x);
}
constexpr int32_t BEGIN = 0;
#endif
INLINE I dot_bytes(I sum, B w, B x) { return EACH3(dot_bytes4, sum, w, x); }
// Two bits of every byte, from bit N on: moved down, or left in place
template <int N>
INLINE uint8x16_t two_bits4(uint8x16_t x) {
    if constexpr (N == 0)
        return vandq_u8(x, vdupq_n_u8(3));
    else if constexpr (N == 6)
        return vshrq_n_u8(x, 6);
    else
        return vandq_u8(vshrq_n_u8(x, N), vdupq_n_u8(3));
}
template <int N>
INLINE B two_bits(B x) {
    return EACH(two_bits4<N>, x);
}
template <int N>
INLINE uint8x16_t in_place4(uint8x16_t x) {
    return vandq_u8(x, vdupq_n_u8(3 << N));
}
template <int N>
INLINE B in_place(B x) {
    return EACH(in_place4<N>, x);
}
constexpr int MOST_SMALL = 1 << 30;  // codes up to 2 that dot_small may add up before `settled`
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr bool IN_PLACE = true;  // whether dot_small takes codes up to 192
INLINE I dot_small(I sum, B w, B x) { return dot_bytes(sum, w, x); }
#else
constexpr bool IN_PLACE = false;
INLINE I dot_small(I sum, B w, B x) { return dot_nibbles(sum, w, x); }
#endif
INLINE I settled(I sum) { return sum; }
template <int N>
INLINE int32x4_t halved4(int32x4_t x) {
    return vshrq_n_s32(x, N);
}
template <int N>
INLINE I halved(I x) {  // divided by 2^N without a rest
    return EACH(halved4<N>, x);
}
INLINE I itimes(I x, I y) { return EACH2(vmulq_s32, x, y); }
INLINE int32x4_t times_256_4(int32x4_t x) { return vshlq_n_s32(x, 8); }
INLINE I times_256(I x) { return EACH(times_256_4, x); }
INLINE I isub(I x, I y) { return EACH2(vsubq_s32, x, y); }
INLINE B byte_set(uint8_t x) {
    const uint8x16_t q = vdupq_n_u8(x);
    return {q, q, q, q};
}
INLINE B byte_add(B x, B y) { return EACH2(vaddq_u8, x, y); }
INLINE B byte_sub(B x, B y) { return EACH2(vsubq_u8, x, y); }
INLINE B byte_min(B x, B y) { return EACH2(vminq_u8, x, y); }
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)  // rounds sums to odd, and numbers below 2^-126 to zero
INLINE float32x4_t dot_pairs(float32x4_t sum, uint8x16_t w, uint8x16_t x) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_u8(w), vreinterpretq_bf16_u8(x));
}
INLINE F dot_bf16(F sum, B w, B x) { return EACH3(dot_pairs, sum, w, x); }
#else
INLINE F dot_bf16(F sum, B w, B x) { return fma(second(w), second(x), fma(first(w), first(x), sum)); }
#endif
#undef EACH
#undef EACH2
#undef EACH3

}  // namespace RIYAZ_ISA
}  // namespace riyaz
