// 16 lanes on any CPU, as plain loops that the compiler may vectorise: included by simd/simd.h only.
#pragma once

namespace riyaz {
namespace RIYAZ_ISA {

constexpr int REGISTERS = 1;  // none to speak of
struct F {
    float v[16];
};
struct I {
    int32_t v[16];
};
using Sums = I;
struct B {
    uint8_t v[64];
};
#define LANES for (int i = 0; i < 16; i++)

INLINE F set(float x) {
    F r;
    LANES r.v[i] = x;
    return r;
}
INLINE F zero() { return set(0); }
INLINE F load(const float* x) {
    F r;
    memcpy(r.v, x, 64);
    return r;
}
INLINE void store(float* x, F v) { memcpy(x, v.v, 64); }
INLINE F add(F a, F b) {
    LANES a.v[i] += b.v[i];
    return a;
}
INLINE F sub(F a, F b) {
    LANES a.v[i] -= b.v[i];
    return a;
}
INLINE F mul(F a, F b) {
    LANES a.v[i] *= b.v[i];
    return a;
}
INLINE F div(F a, F b) {
    LANES a.v[i] /= b.v[i];
    return a;
}
INLINE F fma(F a, F b, F c) {
    LANES c.v[i] += a.v[i] * b.v[i];
    return c;
}
INLINE F max(F a, F b) {
    LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
INLINE F min(F a, F b) {
    LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
INLINE F sqrt(F a) {
    LANES a.v[i] = __builtin_sqrtf(a.v[i]);
    return a;
}
INLINE F abs(F a) {
    LANES a.v[i] = __builtin_fabsf(a.v[i]);
    return a;
}
INLINE F floor(F a) {
    LANES a.v[i] = __builtin_floorf(a.v[i]);
    return a;
}
// As vector units do: what is no int32 becomes the least one, and sums begin again beyond the greatest
INLINE int32_t to_word(float whole) {
    return whole >= -0x1p31f && whole < 0x1p31f ? int32_t(whole) : int32_t(0x80000000);
}
INLINE int32_t wrapped(uint32_t sum) { return int32_t(sum); }
INLINE F times_power_of_2(F a, F whole) {
    LANES {
        const uint32_t word = (uint32_t(to_word(whole.v[i])) + 127) << 23;
        float power;
        memcpy(&power, &word, 4);
        a.v[i] *= power;
    }
    return a;
}
INLINE F select(uint32_t mask, F yes, F no) {
    LANES no.v[i] = mask >> i & 1 ? yes.v[i] : no.v[i];
    return no;
}
INLINE bool any_below(F a, F b) {
    bool any = false;
    LANES any = any || a.v[i] <= b.v[i];
    return any;
}
INLINE float sum_of(F a) {  // in the order of the vector units: halves, quarters, ...
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) a.v[i] += a.v[i + n];
    return a.v[0];
}
INLINE float max_of(F a) {
    float m = a.v[0];
    LANES m = m > a.v[i] ? m : a.v[i];
    return m;
}
INLINE F larger(F a, F b) {  // the larger |number| of each lane, NaN where one is NaN: as integers NaN is the largest
    int32_t p[16], q[16];
    const F one = abs(a), two = abs(b);
    memcpy(p, one.v, 64), memcpy(q, two.v, 64);
    LANES p[i] = p[i] > q[i] ? p[i] : q[i];
    F r;
    memcpy(r.v, p, 64);
    return r;
}
INLINE float size_of(F a, F b) {  // the largest |number| of all, NaN where one is NaN
    const F all = larger(a, b);
    int32_t words[16], word = 0;
    memcpy(words, all.v, 64);
    LANES word = word > words[i] ? word : words[i];
    float size;
    memcpy(&size, &word, 4);
    return size;
}
INLINE F load_half(const uint16_t* x) {
    F r;
    LANES r.v[i] = half(x[i]);
    return r;
}
INLINE F load_u8(const uint8_t* x) {
    F r;
    LANES r.v[i] = x[i];
    return r;
}
INLINE F load_i8(const int8_t* x) {
    F r;
    LANES r.v[i] = x[i];
    return r;
}
INLINE F load_bf16(const uint16_t* x) {
    F r;
    LANES r.v[i] = from_bf16(x[i]);
    return r;
}
INLINE I rounded_bf16(F v) {
    I r;
    LANES r.v[i] = to_bf16(v.v[i]);
    return r;
}
INLINE void store_bf16(uint16_t* x, F v) { LANES x[i] = to_bf16(v.v[i]); }
INLINE uint16_t word16(const B& p, int i) {
    uint16_t w;
    memcpy(&w, p.v + 2 * i, 2);
    return w;
}
INLINE F first(B p) {
    F r;
    LANES r.v[i] = from_bf16(word16(p, 2 * i));
    return r;
}
INLINE F second(B p) {
    F r;
    LANES r.v[i] = from_bf16(word16(p, 2 * i + 1));
    return r;
}

INLINE I iset(int32_t x) {
    I r;
    LANES r.v[i] = x;
    return r;
}
INLINE I izero() { return iset(0); }
INLINE F to_float(I a) {
    F r;
    LANES r.v[i] = float(a.v[i]);
    return r;
}
INLINE I to_int(F a) {
    I r;
    LANES r.v[i] = to_word(__builtin_rintf(a.v[i]));
    return r;
}
INLINE I iadd(I a, I b) {
    LANES a.v[i] = wrapped(uint32_t(a.v[i]) + uint32_t(b.v[i]));
    return a;
}
INLINE int32_t isum_of(I a) {
    uint32_t s = 0;
    LANES s += uint32_t(a.v[i]);
    return wrapped(s);
}
INLINE void store_i8(int8_t* x, I a) { LANES x[i] = int8_t(a.v[i]); }

INLINE B load_bytes(const void* x) {
    B r;
    memcpy(r.v, x, 64);
    return r;
}
INLINE void store_bytes(void* x, B v) { memcpy(x, v.v, 64); }
INLINE B spread(const void* x) {
    B r;
    LANES memcpy(r.v + 4 * i, x, 4);
    return r;
}
INLINE B low(B a) {
    for (auto& v : a.v) v &= 15;
    return a;
}
INLINE B high(B a) {
    for (auto& v : a.v) v >>= 4;
    return a;
}
INLINE B whole_low(B upper, B lower) {
    for (int i = 0; i < 64; i++) upper.v[i] = uint8_t(upper.v[i] << 4 | (lower.v[i] & 15));
    return upper;
}
INLINE B whole_high(B upper, B lower) {
    for (int i = 0; i < 64; i++) upper.v[i] = uint8_t((upper.v[i] & 0xf0) | lower.v[i] >> 4);
    return upper;
}
INLINE B doubled(I a) {
    B r;
    LANES for (int j = 0; j < 4; j++) r.v[4 * i + j] = uint8_t(uint32_t(a.v[i]) >> 8 * (j % 2));
    return r;
}
INLINE B scaled(B bytes, B a, B b) {
    for (int i = 0; i < 64; i++) bytes.v[i] = uint8_t((bytes.v[i] * word16(a, i / 2) + word16(b, i / 2)) >> 8);
    return bytes;
}
constexpr int32_t BEGIN = 0;
// Both are one loop over all bytes: at two loops g++ 14.2 ends with an internal error (expand_expr_real_2).
INLINE I dot_nibbles(I sum, B w, B x) {
    for (int i = 0; i < 64; i++) sum.v[i / 4] += w.v[i] * int8_t(x.v[i]);
    return sum;
}
INLINE I dot_bytes(I sum, B w, B x) {
    for (int i = 0; i < 64; i++) sum.v[i / 4] += (w.v[i] - 128) * int8_t(x.v[i]);
    return sum;
}
template <int N>
INLINE B two_bits(B word) {
    for (auto& v : word.v) v = v >> N & 3;
    return word;
}
template <int N>
INLINE B in_place(B word) {
    for (auto& v : word.v) v &= 3 << N;
    return word;
}
constexpr bool IN_PLACE = false;
constexpr int MOST_SMALL = 1 << 30;
INLINE I dot_small(I sum, B codes, B x) { return dot_nibbles(sum, codes, x); }
INLINE I settled(I sum) { return sum; }
template <int N>
INLINE I halved(I a) {
    LANES a.v[i] >>= N;
    return a;
}
INLINE I itimes(I a, I b) {
    LANES a.v[i] = wrapped(uint32_t(a.v[i]) * uint32_t(b.v[i]));
    return a;
}
INLINE I times_256(I a) {
    LANES a.v[i] = wrapped(uint32_t(a.v[i]) * 256);
    return a;
}
INLINE I isub(I a, I b) {
    LANES a.v[i] = wrapped(uint32_t(a.v[i]) - uint32_t(b.v[i]));
    return a;
}
INLINE B byte_set(uint8_t x) {
    B r;
    for (auto& v : r.v) v = x;
    return r;
}
INLINE B byte_add(B a, B b) {
    for (int i = 0; i < 64; i++) a.v[i] = uint8_t(a.v[i] + b.v[i]);
    return a;
}
INLINE B byte_sub(B a, B b) {
    for (int i = 0; i < 64; i++) a.v[i] = uint8_t(a.v[i] - b.v[i]);
    return a;
}
INLINE B byte_min(B a, B b) {
    for (int i = 0; i < 64; i++) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
INLINE F dot_bf16(F sum, B w, B x) { return fma(second(w), second(x), fma(first(w), first(x), sum)); }
#undef LANES

}  // namespace RIYAZ_ISA
}  // namespace riyaz
