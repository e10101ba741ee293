// Norm, rotation, gate and cross-entropy of training, forward and backward, each over all threads.
//
// Tensors are contiguous but for those of a gate, of float or, with `bf16`, of bfloat16; arithmetic is in float, and
// results are rounded once. Equal inputs give equal bits, whatever the number of threads: work is cut by shapes alone.
// Null: not used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace riyaz {

// out = x * scale * weight with scale = 1 / sqrt(mean(x^2) + eps); backward: `out` is the gradient of x.
struct NormJob {
    const void *x = nullptr, *grad = nullptr;  // (T, C)
    const float* weight = nullptr;             // (C,)
    float* scale = nullptr;                    // (T,): written by the forward pass, read by the backward one
    void* out = nullptr;                       // (T, C)
    int C = 0;
    float eps = 0;
    bool bf16 = false;
};

// out = x * cos + (x with the halves of each head exchanged) * sin, or - with `back`
struct RotateJob {
    const void* x = nullptr;                    // (T, H, D)
    const void *cos = nullptr, *sin = nullptr;  // (T, D)
    void* out = nullptr;                        // (T, H, D)
    int H = 0, D = 0;
    bool back = false, bf16 = false;
};

// out = activation(gate) * up, all (T, C); backward: the gradients of both from `grad`, that of `out`
struct GateJob {
    const void *gate = nullptr, *up = nullptr, *grad = nullptr;
    void *out = nullptr, *grad_gate = nullptr, *grad_up = nullptr;
    int C = 0;
    size_t row = 0, grad_row = 0;  // numbers from one row of gate and up, or of their gradients, to the next
    Activation activation = Activation::silu;
    bool bf16 = false;
};

// nats[n] = -log softmax(logits[n])[labels[n]]; with `gradient` the logits become their gradient.
struct LossJob {
    void* logits = nullptr;           // (N, V)
    const int64_t* labels = nullptr;  // (N,), each from 0 to V - 1
    double* nats = nullptr;           // (N,)
    int V = 0;
    bool gradient = false, bf16 = false;
};

// A step of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) of weights of 32 bits: floats, or with
// `low` their upper 16 bits, rounded, as bfloat16, and the difference to all 32. With g = factor * grad, mean += (1 -
// beta1) (g - mean), square += (1 - beta2) (g^2 - square), weight = keep * weight - size * mean / (sqrt(square) / root
// + eps), and grad = 0.
struct AdamJob {
    void *weight = nullptr, *mean = nullptr;  // of one type
    int16_t* low = nullptr;
    float *square = nullptr, *grad = nullptr;
    float factor = 1, beta1 = 0, beta2 = 0, keep = 1, size = 0, root = 1, eps = 0;
};

// total += factor * x
struct SumJob {
    float* total = nullptr;
    const void* x = nullptr;
    float factor = 1;
    bool bf16 = false;  // x
};

// codes = round(weight * inverse), at most 1 in size
struct RoundJob {
    const void* weight = nullptr;
    int8_t* codes = nullptr;
    float inverse = 0;
    bool bf16 = false;  // weight
};

void norm_forward(const NormJob& job, size_t T, int threads);
void norm_backward(const NormJob& job, size_t T, float* grad_weight, int threads);  // grad_weight (C,), or null
void rotate_all(const RotateJob& job, size_t T, int threads);
void gate_forward(const GateJob& job, size_t T, int threads);
void gate_backward(const GateJob& job, size_t T, int threads);
void add_scaled(const SumJob& job, size_t count, int threads);
void adam_step(const AdamJob& job, size_t count, int threads);
// Rounds `count` weights by the mean of their sizes, at least `least`, which it returns.
float ternary_codes(RoundJob job, size_t count, float least, int threads);
double loss_of(const LossJob& job, size_t N, int threads);  // the sum of `nats`, in the order of the rows

}  // namespace riyaz
