// Groups of inputs as codes of 8 bits, for every product that reads these.
#pragma once

#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {

// 16 * n numbers, n at least 2, as codes of -127 to 127 with one scale: number ≈ scale * code. Returns the sum of the
// codes. Where a number is not finite the codes, which cannot say that, are 0 and the scale is NaN.
INLINE int32_t encode_group(const F* v, int n, int8_t* codes, float* scale) {
    F size = v[0];
#pragma GCC unroll 4
    for (int i = 1; i < n - 1; i++) size = larger(size, v[i]);
    const float largest = size_of(size, v[n - 1]);
    if (!(largest <= 3.4028234e38f)) {
        memset(codes, 0, size_t(n) * 16);
        *scale = NAN;
        return 0;
    }
    const F inverse = set(largest > 1e-30f ? 127 / largest : 0);  // 127 / 1e-37 is infinite
    I sum = izero();
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const I own = to_int(mul(v[i], inverse));
        store_i8(codes + 16 * i, own), sum = iadd(sum, own);
    }
    *scale = largest / 127;
    return isum_of(sum);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
