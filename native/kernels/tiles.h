// AMX's tile registers, configured as eight tiles of 16 rows of 64 bytes, once for each thread.
#pragma once

#include "../simd.h"

#if defined(__AMX_TILE__)

namespace riyaz {
namespace RIYAZ_ISA {

INLINE void configure_tiles() {
    static thread_local bool done = false;
    if (done) return;
    struct {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
    done = true;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
