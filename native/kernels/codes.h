// Groups of inputs as codes of 8 bits, for every product that reads these.
#pragma once

#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {

// The largest size of 16 * n numbers, n at least 2; NaN where one is not finite
INLINE float largest_of(const F* v, int n) {
    F size = v[0];
#pragma GCC unroll 4
    for (int i = 1; i < n - 1; i++) size = larger(size, v[i]);
    const float largest = size_of(size, v[n - 1]);
    return largest <= 3.4028234e38f ? largest : NAN;
}
// What numbers are multiplied with to become codes; 127 / 1e-37 would be infinite
INLINE F to_codes(float largest) { return set(largest > 1e-30f ? 127 / largest : 0); }

// 16 * n numbers, n at least 2, as codes of -127 to 127 with one scale: number ≈ scale * code. Returns the sum of the
// codes. Where a number is not finite the codes, which cannot say that, are 0 and the scale is NaN.
INLINE int32_t encode_group(const F* v, int n, int8_t* codes, float* scale) {
    const float largest = largest_of(v, n);
    *scale = largest / 127;
    if (largest != largest) {
        memset(codes, 0, size_t(n) * 16);
        return 0;
    }
    const F inverse = to_codes(largest);
    I sum = izero();
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const I own = to_int(mul(v[i], inverse));
        store_i8(codes + 16 * i, own), sum = iadd(sum, own);
    }
    return isum_of(sum);
}

// The same in two codes, both of -127 to 127: number ≈ scale * (256 * code + low). Returns the sum of the brackets.
INLINE int32_t encode_group_finely(const F* v, int n, int8_t* codes, int8_t* low, float* scale) {
    const float largest = largest_of(v, n);
    *scale = largest / 127 * 0x1p-8f;
    if (largest != largest) {
        memset(codes, 0, size_t(n) * 16), memset(low, 0, size_t(n) * 16);
        return 0;
    }
    const F inverse = to_codes(largest), most = set(127);
    I sum = izero(), sum_of_low = izero();
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const F exact = mul(v[i], inverse);
        const I own = to_int(exact);
        const F rest = mul(sub(exact, to_float(own)), set(256));
        const I below = to_int(max(sub(zero(), most), min(most, rest)));
        store_i8(codes + 16 * i, own), store_i8(low + 16 * i, below);
        sum = iadd(sum, own), sum_of_low = iadd(sum_of_low, below);
    }
    return 256 * isum_of(sum) + isum_of(sum_of_low);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
