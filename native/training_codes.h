// Products of training with a frozen matrix whose weights are codes of 8 bits.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace riyaz {

// y = x Wᵀ, or y + x Wᵀ with `add`; x (T, cols) and y (T, rows) are contiguous, of float or, with `bf16`, of bfloat16;
// sums are in float32. Inputs become codes of 8 bits too, one scale in 64 columns, or in 32 where there are no wide
// products; with tiles they become bfloat16. A token's result depends on its inputs alone, not on other tokens or the
// number of threads.
void code_product(const Kernels& k, const Weights& w, int cols, const void* x, size_t T, bool bf16, void* y, bool add,
                  int threads);

}  // namespace riyaz
