// Products of training with frozen matrices whose weights are codes of 8 bits, and LoRAs beside them.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "training/product_jobs.h"

namespace riyaz {

// A frozen matrix (rows, cols) in codes of 8 bits with one scale in CODE_GROUP columns of each row: at most half a step
// of 1/127 of the largest of these off, or 1e-30.
class FrozenCodes {
  public:
    FrozenCodes(int rows, int cols);
    // Rows [first, first + count) from floats; false, and nothing is changed, where one is not a finite number
    bool fill(int first, int count, const float* weights, int threads);
    // Groups [group, group + count) of a strip, times the same groups of tokens
    CodeTerm term(int strip, int group, int count, const CodedTokens& x) const;

    const int rows, cols, groups;

  private:
    uint8_t* codes_of(int row) const;
    float* scales_of(int row) const;

    std::shared_ptr<uint8_t> codes_, scales_;
};

// y (T, rows) = x (T, cols) Wᵀ, both of float or bfloat16; sums are in float32. Inputs become codes of 8 bits too. A
// token's result depends on its inputs alone, not on other tokens or the number of threads.
void code_product(const Kernels& k, const FrozenCodes& w, const MatrixView& x, int T, const MatrixView& y, int threads);

// A linear of codes with a LoRA: y = x Wᵀ + scale * (x Aᵀ) Bᵀ
struct LoraLayer {
    const FrozenCodes* weights;  // W (out, in), or for backward Wᵀ
    int out, rank;
    float scale;
    MatrixView a, b;         // (rank, in), (out, rank)
    MatrixView y;            // (T, out): the result, or for backward its gradient
    float *grad_a, *grad_b;  // the shapes of A and B: backward adds to them
};

// Layers of the same x (T, in). `low` (T, lanes) holds scale * x Aᵀ of all layers, each padded with zeros to
// `padded_rank`; forward writes it, backward reads it. Tensors are of float or bfloat16, as x; sums are in float32.
struct LoraJob {
    std::vector<LoraLayer> layers;
    MatrixView x;
    int T, in;
    void *low, *grad_x;  // (T, in), or null where it is not wanted
};

static constexpr int padded_rank(int rank) { return padded(rank, 16); }
int lora_lanes(const LoraJob& job);

void lora_forward(const Kernels& k, const LoraJob& job, int threads);
// Writes `grad_x`, rounded once, and adds to the gradients of A and B.
void lora_backward(const Kernels& k, const LoraJob& job, int threads);

}  // namespace riyaz
