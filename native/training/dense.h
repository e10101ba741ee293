// Products of training with bfloat16 weights, on CPUs that multiply pairs of them quickly or have AMX's tiles:
// `has_dense`. One call computes all linears of one input, with their LoRAs; gradients of weights go straight into the
// float32 sums of an optimiser.
#pragma once

#include <vector>

#include "kernels/kernels.h"
#include "training/product_jobs.h"

namespace riyaz {

// y = x Wᵀ + bias, and with a LoRA + low Bᵀ for low = scale x Aᵀ
struct DenseLayer {
    MatrixView w;  // (out, in)
    int out;
    const uint16_t* bias;  // (out,), or null
    MatrixView y;          // (T, out): the result, or for backward its gradient
    float* total;          // (out, in): backward adds the gradient of W to it, unless it is null; no other layer's
    int rank = 0;          // of a LoRA, or 0; only where there are tiles: `has_tiles`
    float scale = 1;
    MatrixView a = {};        // (rank, in)
    MatrixView b = {};        // (out, rank)
    MatrixView low = {};      // (T, rank), which forward writes and backward reads
    float* grad_a = nullptr;  // (rank, in): backward adds the gradient of A to it
    float* grad_b = nullptr;  // (out, rank)
};

// Layers of the same x (T, in), all in bfloat16; `in`, every `out` and every rank are even. Numbers too small for
// bfloat16's usual exponents count as 0.
struct DenseJob {
    std::vector<DenseLayer> layers;
    MatrixView x;
    int T, in;
    MatrixView grad_x;  // (T, in), or without data where it is not wanted
};

// Sums are in float32 and results are rounded once. A result does not depend on the number of threads, nor a token's on
// other tokens.
void dense_forward(const Kernels& k, const DenseJob& job, int threads);
void dense_backward(const Kernels& k, const DenseJob& job, int threads);

}  // namespace riyaz
