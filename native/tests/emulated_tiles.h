// AMX's tiles in plain loops, so that a CPU with AVX-512 and bfloat16 alone can check the kernels that use them: put
// before each of their files for the program check_tiles.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define __AMX_TILE__ 1  // after the compiler's own header, which would call its builtins
#define __AMX_BF16__ 1
#define __AMX_INT8__ 1
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps

namespace {

struct EmulatedTile {
    unsigned char bytes[16][64];
};
thread_local EmulatedTile emulated_tiles[8];

[[maybe_unused]] void emulated_load(int tile, const void* from, long stride) {
    for (int i = 0; i < 16; i++) std::memcpy(emulated_tiles[tile].bytes[i], (const char*)from + i * stride, 64);
}
[[maybe_unused]] void emulated_store(int tile, void* to, long stride) {
    for (int i = 0; i < 16; i++) std::memcpy((char*)to + i * stride, emulated_tiles[tile].bytes[i], 64);
}
[[maybe_unused]] float emulated_float(const unsigned char* bf16) {
    std::uint16_t half;
    std::memcpy(&half, bf16, 2);
    std::uint32_t bits = std::uint32_t{half} << 16;
    if ((bits & 0x7f800000) == 0) bits &= 0x80000000;  // numbers below the usual exponents are zeros
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
// Intel's manual: all first numbers of the pairs of a row, then all second ones
[[maybe_unused]] void emulated_product(int sums, int left, int right) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float two[2] = {};
            for (int k = 0; k < 16; k++)
                for (int i = 0; i < 2; i++)
                    two[i] += emulated_float(emulated_tiles[left].bytes[m] + 4 * k + 2 * i) *
                              emulated_float(emulated_tiles[right].bytes[k] + 4 * n + 2 * i);
            float sum;
            unsigned char* at = emulated_tiles[sums].bytes[m] + 4 * n;
            std::memcpy(&sum, at, 4), sum += two[0] + two[1], std::memcpy(at, &sum, 4);
        }
}

}  // namespace

#define _tile_loadconfig(config) ((void)(config))
#define _tile_loadd(tile, from, stride) emulated_load(tile, from, long(stride))
#define _tile_stream_loadd(tile, from, stride) emulated_load(tile, from, long(stride))
#define _tile_stored(tile, to, stride) emulated_store(tile, to, long(stride))
#define _tile_zero(tile) std::memset(&emulated_tiles[tile], 0, sizeof(EmulatedTile))
#define _tile_dpbf16ps(sums, left, right) emulated_product(sums, left, right)
