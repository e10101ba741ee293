// The kernels of one instruction set, as `table.cpp` lists them. RIYAZ_ISA is its namespace.
#pragma once

#include "../kernels.h"
#include "../simd.h"

// How products with many tokens are computed: AVX2 alone has no quick product of 8 bits.
#if defined(__AMX_BF16__)
#define RIYAZ_WIDE_TILES
#elif !defined(__AVX2__) || defined(__AVXVNNI__) || defined(__AVX512VNNI__)
#define RIYAZ_WIDE_LANES
#endif

namespace riyaz {
namespace RIYAZ_ISA {

// Whether training multiplies pairs of bfloat16: quicker on AMD's; with AMX it was not measured
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define RIYAZ_PAIRS
constexpr bool QUICK_PAIRS = true;
#else
constexpr bool QUICK_PAIRS = false;
#endif

constexpr size_t AHEAD = 12 * 1024;  // bytes that weights are prefetched before they are used

// Where to prefetch while the block at `at` is read: further on, or where the thread reads after `end`.
INLINE const uint8_t* ahead(const uint8_t* at, const uint8_t* end, const uint8_t* next) {
    const uint8_t* far = at + AHEAD;
    return far < end || !next ? far : next + (far - end);
}

INLINE int min_of(int a, int b) { return a < b ? a : b; }

INLINE F activated(F x, Activation activation) {
    if (activation == Activation::relu2) return mul(max(x, zero()), x);
    return activation == Activation::silu ? silu(x) : gelu_tanh(x);
}

// 16 results, of which the first `count` are rows of the matrix
INLINE void put(float* y, F v, int count, bool add_) {
    if (count >= ROWS) return store(y, add_ ? add(load(y), v) : v);
    float part[ROWS];
    store(part, v);
    for (int i = 0; i < count; i++) y[i] = add_ ? y[i] + part[i] : part[i];
}

void inputs(const float* x, int C, const Inputs& out);
void narrow(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
            const uint8_t* next, void* scratch);
void narrow_gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation, const Inputs& x,
                  int T, float* y, size_t stride, const uint8_t* next, void* scratch);
// What `narrow` and `narrow_gated` leave to matmul_many.cpp: return the first block that these still have to compute.
int narrow_many(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
                void* scratch);
int narrow_gated_many(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                      const Inputs& x, int T, float* y, size_t stride, void* scratch);
void sketch(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, float* variance, size_t stride,
            const uint8_t* next);
int contenders(const float* y, const float* variance, int n, float best, float best_variance, int* found);
void row(const Weights& w, int row, float* out);
void wide(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
          void* scratch);
void wide_gated(const Weights& gate, const Weights& up, int begin, int end, Activation activation, const Inputs& x,
                int T, const Inputs& y, void* scratch);
void wide_inputs(const float* x, int C, const Inputs& out);
void ternary_inputs(const float* x, int C, const Inputs& out);
void ternary(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
             const uint8_t* next, void* scratch);
void ternary_row(const Weights& w, int row, float* out);

void rms_norm(const float* x, const float* weight, float eps, int C, float* out);
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int C, float* out);
void rotate(float* x, const float* cos, const float* sin, int D, float scale);
void activate(float* x, const float* y, Activation activation, int n);
void gelu_erf(float* x, const float* bias, int n);
void softmax_sums(const float* x, int n, float* largest, float* sum);
float largest(const float* x, int n);
void add_to(float* x, const float* y, int n);
void training_forward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* scratch);
void training_backward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* scratch,
                       float* grad_k, float* grad_v);
void words_of_lines(const Lines& m, int lines, int width, float* out, int stride);
void words_of_columns(const Lines& m, int lines, int width, float* out, int stride);
void lora_low(const LowJob& job);
void lora_gradient(const float* low, int stride, int lanes, const Lines& x, int T, int width, float* scratch,
                   float* out);
void turned_words(const Lines& m, int lines, int pairs, float* out);
void words_in_strips(const Lines& m, int lines, int width, int each, float* out, size_t apart);
void dense_lines(const DenseTerm* terms, int count, int T, int width, const uint16_t* bias, const Lines& y);
void dense_gradient(const float* grad, int rows, const float* x, int pairs, int width, float* total, size_t row);
void encode_tokens(const Lines& x, int T, int C, const CodedTokens& out);
void code_strip(const StripJob& job);
void round_sum(const float* const* from, int count, int D, void* out, size_t at, bool bf16);
void norm(const NormJob& job, size_t begin, size_t end);
void norm_gradient(const NormJob& job, size_t begin, size_t end, float* grad_weight);
void rotation(const RotateJob& job, size_t begin, size_t end);
void gate(const GateJob& job, size_t begin, size_t end);
void gate_gradient(const GateJob& job, size_t begin, size_t end);
void loss(const LossJob& job, size_t begin, size_t end);
void adam(const AdamJob& job, size_t begin, size_t end);
void add_scaled(const SumJob& job, size_t begin, size_t end);
double absolute_sum(const RoundJob& job, size_t begin, size_t end);
void round_ternary(const RoundJob& job, size_t begin, size_t end);

double peak(int kind);
uint64_t read(const uint8_t* data, size_t bytes);

const Kernels& table();

}  // namespace RIYAZ_ISA
}  // namespace riyaz
