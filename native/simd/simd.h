// 16 floats, 16 int32 or 64 bytes as one value, on every instruction set: kernels are written once with these.
//
// Everything here is static: a function with external linkage, compiled for several instruction sets, could be merged
// by the linker into one that the CPU at hand does not have. For the same reason kernels use no templates of the
// standard library.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd/numbers.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// NOLINTBEGIN
namespace riyaz {
namespace RIYAZ_ISA {

INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#if defined(__AVX512F__)
#include "simd/avx512.h"
#elif defined(__AVX2__)
#include "simd/avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "simd/neon.h"
#else
#include "simd/any.h"
#endif

namespace riyaz {
namespace RIYAZ_ISA {

// e^x to 2 units in the last place, by range reduction and a polynomial of degree 6 (coefficients of Cephes' expf).
INLINE F exp(F x) {
    x = max(set(-87.0f), min(set(88.0f), x));  // in this order a NaN stays one
    const F whole = set(0x1.8p23f);            // what is added to it is rounded to a whole number
    const F n = sub(fma(x, set(1.44269504088896341f), whole), whole);
    F r = fma(n, set(-0.693359375f), x);
    r = fma(n, set(2.12194440e-4f), r);
    F p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    p = add(fma(p, mul(r, r), r), set(1.0f));
    return times_power_of_2(p, n);
}
INLINE F silu(F x) { return div(x, add(set(1.0f), exp(sub(zero(), x)))); }
INLINE F gelu_tanh(F x) {  // 0.5 x (1 + tanh(u)) = x / (1 + e^(-2 u))
    const F u = mul(mul(set(0.7978845608028654f), x), fma(mul(x, x), set(0.044715f), set(1.0f)));
    return div(x, add(set(1.0f), exp(mul(set(-2.0f), u))));
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
// NOLINTEND
