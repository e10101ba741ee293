// Products of training with frozen matrices whose weights are codes of 8 bits, and LoRAs beside them.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels.h"
#include "training_lora.h"

namespace riyaz {

// y = x Wᵀ, or y + x Wᵀ with `add`; x (T, cols) and y (T, rows) are contiguous, of float or, with `bf16`, of bfloat16;
// sums are in float32. Inputs become codes of 8 bits too, one scale in 64 columns, or in 32 where there are no wide
// products; with tiles they become bfloat16. A token's result depends on its inputs alone, not on other tokens or the
// number of threads.
void code_product(const Kernels& k, const Weights& w, int cols, const void* x, size_t T, bool bf16, void* y, bool add,
                  int threads);

// A linear of codes with a LoRA: y = x Wᵀ + scale * (x Aᵀ) Bᵀ
struct LoraLayer {
    const Weights* weights;  // W (out, in), or for backward Wᵀ
    int out, rank;
    float scale;
    Lines a, b;              // (rank, in), (out, rank)
    Lines y;                 // (T, out): the result, or for backward its gradient
    float *grad_a, *grad_b;  // the shapes of A and B: backward adds to them
};

// Layers of the same x (T, in). `low` (T, lanes) holds scale * x Aᵀ of all layers, each padded with zeros to
// `padded_rank`; forward writes it, backward reads it. Tensors are of float or bfloat16, as x; sums are in float32.
struct LoraJob {
    std::vector<LoraLayer> layers;
    Lines x;
    int T, in;
    void *low, *grad_x;  // (T, in), or null where it is not wanted
};

static constexpr int padded_rank(int rank) { return padded(rank, 16); }
int lora_lanes(const LoraJob& job);

void lora_forward(const Kernels& k, const LoraJob& job, int threads);
// Writes `grad_x`, rounded once, and adds to the gradients of A and B.
void lora_backward(const Kernels& k, const LoraJob& job, int threads);

}  // namespace riyaz
