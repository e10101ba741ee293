// AMX's tile registers: eight tiles of 16 rows of 64 bytes.
#pragma once

#include "simd/simd.h"

#if defined(__AMX_TILE__)

namespace riyaz {
namespace RIYAZ_ISA {

// At the start of every kernel that uses tiles: other libraries in this process, such as torch, set them up
// differently.
INLINE void configure_tiles() {
    struct {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
}

// Between what is written to memory and `_tile_loadd` of it, which does not tell GCC 12 that it reads memory.
INLINE void written() { asm volatile("" ::: "memory"); }

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
