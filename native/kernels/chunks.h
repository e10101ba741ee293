// Vectors of any length, 16 numbers at a time, as float or as the bits of bfloat16.
#pragma once

#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {

// Calls with 16 numbers at a time; the rest of n < 16 is copied, padded with `fill`
template <class Body>
INLINE void chunks(int n, const Body& body) {
    int i = 0;
    for (; i + 16 <= n; i += 16) body(i, 16);
    if (i < n) body(i, n - i);
}
INLINE F load_some(const float* x, int n, float fill = 0) {
    if (n == 16) return load(x);
    float part[16];
    for (int i = 0; i < 16; i++) part[i] = i < n ? x[i] : fill;
    return load(part);
}
INLINE F load_some(const uint16_t* x, int n, float fill = 0) {
    if (n == 16) return load_bf16(x);
    float part[16];
    for (int i = 0; i < 16; i++) part[i] = i < n ? from_bf16(x[i]) : fill;
    return load(part);
}
INLINE void store_some(float* x, F v, int n) {
    if (n == 16) return store(x, v);
    float part[16];
    store(part, v);
    for (int i = 0; i < n; i++) x[i] = part[i];
}
INLINE void store_some(uint16_t* x, F v, int n) {
    if (n == 16) return store_bf16(x, v);
    float part[16];
    store(part, v);
    for (int i = 0; i < n; i++) x[i] = to_bf16(part[i]);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
