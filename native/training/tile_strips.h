// What products and gradients on AMX's tiles share: matrices in strips of 32 columns.
#pragma once

#include "training/dense.h"
#include "training/memory.h"

namespace riyaz {

constexpr size_t GROUP_BYTES = 1152 << 10;  // of panels, which stay in the second cache
constexpr int PAIR = 2 * TILE_PANEL;        // columns of two panels

inline int steps_of(int numbers) { return parts_of(numbers, TILE_STRIP); }
inline int whole_steps(int lines) { return steps_of(lines) * TILE_STRIP; }

// The strips of a matrix of T lines
struct TileStrips {
    Space<uint16_t> numbers;
    size_t each;  // numbers

    TileStrips(int T, int count)
        : numbers(space<uint16_t>(size_t(count) * whole_steps(T) * TILE_STRIP)),
          each(size_t(whole_steps(T)) * TILE_STRIP) {}
    uint16_t* at(int strip, int line = 0) const {
        return numbers.get() + size_t(strip) * each + size_t(line) * TILE_STRIP;
    }
};

// Adds to the sums of all weights that have one, and to those of LoRAs; `low` (T, rank) of each layer: the gradient of
// its own `low`.
void add_gradients_of_w(const Kernels& k, const DenseJob& job, int threads);
void add_gradients_of_loras(const Kernels& k, const DenseJob& job, const std::vector<MatrixView>& low, int threads);

}  // namespace riyaz
