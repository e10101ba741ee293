// Loops that measure what the hardware can do: the peak of its products in registers, and reading.
#include <time.h>

#include "kernels/isa.h"
#include "kernels/tiles.h"
#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

constexpr long ROUNDS = 2000000;

// Multiply-adds per second of dot_bytes, or of dot_bf16. Enough sums to hide the latency; what they add is read anew in
// each round, from an address that the compiler does not know, or it could compute the end of the loop without it.
template <bool INT8>
double peak_of() {
    constexpr int CHAINS = 12 / (REGISTERS >= 32 ? 1 : 2);
    uint8_t bytes[64];
    for (int i = 0; i < 64; i++) bytes[i] = uint8_t(i % 7);
    I sums[CHAINS];
    F floats[CHAINS];
    for (int j = 0; j < CHAINS; j++) sums[j] = izero(), floats[j] = zero();
    const double start = seconds();
    for (long i = 0; i < ROUNDS; i++) {
        const uint8_t* at = bytes;
        asm volatile("" : "+r"(at));
        const B w = load_bytes(at), x = spread(at);
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) {
            if constexpr (INT8)
                sums[j] = dot_bytes(sums[j], w, x);
            else
                floats[j] = dot_bf16(floats[j], w, x);
        }
    }
    const double taken = seconds() - start;
    volatile float kept = 0;
    for (int j = 0; j < CHAINS; j++) kept = kept + sum_of(add(to_float(sums[j]), floats[j]));
    return double(ROUNDS) * CHAINS * 16 * (INT8 ? 4 : 2) / taken;
}

}  // namespace

double peak(int kind) {
#if defined(__AMX_BF16__)
    const double start = seconds();
    alignas(64) uint8_t tile[1024] = {};
    configure_tiles();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, tile, 64);
    _tile_loadd(5, tile, 64);
    for (long i = 0; i < ROUNDS; i++) {
        if (kind == 0) {
            _tile_dpbusd(0, 4, 5);
            _tile_dpbusd(1, 4, 5);
            _tile_dpbusd(2, 4, 5);
            _tile_dpbusd(3, 4, 5);
        } else {
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 5);
            _tile_dpbf16ps(2, 4, 5);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    _tile_stored(0, tile, 64);
    return double(ROUNDS) * 4 * 16 * 16 * (kind == 0 ? 64 : 32) / (seconds() - start);
#else
    return kind == 0 ? peak_of<true>() : peak_of<false>();
#endif
}

uint64_t read(const uint8_t* data, size_t bytes) {
    I sums[4] = {izero(), izero(), izero(), izero()};
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        for (int j = 0; j < 256; j += 64) prefetch(data + i + 8192 + j);
        for (int j = 0; j < 4; j++) {
            const B line = load_bytes(data + i + j * 64);
            I words;
            memcpy(&words, &line, sizeof words);
            sums[j] = iadd(sums[j], words);
        }
    }
    const I all = iadd(iadd(sums[0], sums[1]), iadd(sums[2], sums[3]));
    uint32_t words[16];
    memcpy(words, &all, sizeof words);
    uint64_t sum = 0;  // any bytes are read here, so 32 bits do not hold it
    for (const uint32_t word : words) sum += word;
    return sum;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
