// Half precision and bfloat16, one number at a time. Always inlined, so that no copy of it has a place in the linker's
// table: see simd/simd.h.
#pragma once

#include <cstdint>
#include <cstring>

#define INLINE static inline __attribute__((always_inline))

namespace riyaz {

INLINE float half(uint16_t bits) {  // half precision to float, in integers
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    uint32_t word;
    if (exponent == 31)
        word = 0x7f800000 | fraction << 13;
    else if (exponent)
        word = (exponent + 112) << 23 | fraction << 13;
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

}  // namespace riyaz
