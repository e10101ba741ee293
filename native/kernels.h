// The table of kernels that each instruction set provides; `dispatch.cpp` chooses one table when the program starts.
//
// Legend: T tokens, C columns (inputs) of a matrix, R rows (outputs), D head size, G query heads of a key/value head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace riyaz {

// The inputs of a matrix product, T tokens in each form that some weights need; `cols` (padded) numbers per token.
// Products of integer weights read `codes`, where x ≈ scale * code in each group of 32 columns, or of `wide_group` in
// products with many tokens by codes; all others read `bf16` or `fp32`, int8row `fp32`, or `bf16` in tiles.
struct Inputs {
    int cols = 0;
    int8_t* codes = nullptr;      // [T][cols], -127 to 127
    float* scale = nullptr;       // [T][cols / 32]
    float* sum = nullptr;         // [T][cols / 32]: scale * sum of the group's codes
    int32_t* total = nullptr;     // [T][cols / 32]: sum of the group's codes; `wide`: what sums of products begin with
    uint16_t* bf16 = nullptr;     // [T padded to 32][cols]
    float* fp32 = nullptr;        // [T][cols]
    int wide_group = WIDE_GROUP;  // 32 or 64
    // What products of ternary weights read: x ≈ scale * code with one scale for all numbers of a token, as in training
    int8_t* token_codes = nullptr;   // [T][cols], -127 to 127
    float* token_scale = nullptr;    // [T]
    int32_t* token_total = nullptr;  // [T][cols / 16]: sums of codes

    Inputs from(int t) const;  // the inputs of tokens t, t + 1, ...
};

inline Inputs Inputs::from(int t) const {
    Inputs x = *this;
    const size_t numbers = size_t(t) * cols, groups = size_t(t) * (cols / GROUP);
    if (codes) x.codes += numbers, x.scale += groups, x.sum += groups, x.total += groups;
    if (bf16) x.bf16 += numbers;
    if (fp32) x.fp32 += numbers;
    if (token_codes) x.token_codes += numbers, x.token_scale += t, x.token_total += numbers / TERNARY;
    return x;
}

enum class Activation : int32_t { silu, gelu_tanh, relu2 };  // relu2: the square of max(x, 0)

// Visible slots of one page of a sequence. Bit s of `mask` says that slot s is one of its tokens; `first` is the index
// in the sequence of the first of them. A sequence's tokens stand in ascending slots.
struct Segment {
    const uint8_t* page = nullptr;
    uint32_t mask = 0;
    int32_t first = 0;
};

// Attention of n tokens in a row of one sequence, for the G query heads of one key/value head of one layer.
struct Attention {
    const float* q = nullptr;  // q[i * q_stride + g * head + d]: token i, head g; scaled already
    float* out = nullptr;      // the same with out_stride
    size_t q_stride = 0, out_stride = 0;
    int n = 0, G = 0, head = 0;  // head: D, not padded
    int position = 0;            // token i sees tokens 0 ... position + i of its sequence
    int window = 0;              // and of these the last `window`; 0: all
    const Segment* segments = nullptr;
    int count = 0;
    size_t keys = 0, values = 0;  // where the layer and head begin in each page, in bytes
    Kv kv = Kv::bf16;             // the type of the cache
};

constexpr int MOST_SKETCHED = 2;

// How products with many tokens are computed: as those with few; from codes of 8 bits, or in float32 if the weights are
// bfloat16; in bfloat16 in AMX's tiles, and attention too
enum class Wide { none, lanes, tiles };

struct PackedAttention;  // training_attention.h
struct RowPiece;
struct NormJob;  // training_functions.h
struct RotateJob;
struct AdamJob;
struct GateJob;
struct LossJob;
struct RoundJob;
struct SumJob;
struct LowJob;  // training_jobs.h
struct DenseTerm;
struct StripJob;
struct CodedTokens;
struct Lines;

struct Kernels {
    const char* name;
    Wide wide_kind;
    bool wide_bf16;        // whether products with many tokens take weights in bfloat16
    bool trains_in_pairs;  // whether training multiplies pairs of bfloat16, if that is its type

    // x[C] in the forms that `out` has room for (token 0 of `out`); columns beyond C, up to a multiple of 32, are
    // zeros.
    void (*inputs)(const float* x, int C, const Inputs& out);

    // y[t * stride + r] = (or +=, with `add`) sum over c of W[r][c] * x[t][c], for the rows of blocks [begin, end) and
    // T tokens. A token's result does not depend on T. `next` is where this thread reads weights afterwards. `scratch`
    // has wide_scratch(cols) bytes, aligned to 64, or is null; with it many tokens of integer weights take less time.
    void (*narrow)(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
                   const uint8_t* next, void* scratch);
    // y = activation(W_gate x) * (W_up x), for the same rows of two matrices.
    void (*narrow_gated)(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                         const Inputs& x, int T, float* y, size_t stride, const uint8_t* next, void* scratch);
    // What the upper halves of int8 codes tell of y, for T <= MOST_SKETCHED: the estimate, and the variance of its
    // error, if the lower halves are even random numbers.
    void (*sketch)(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, float* variance,
                   size_t stride, const uint8_t* next);
    // The blocks of y[n], n <= 16 blocks of 16, whose largest number may be above `best`, an estimate too: their
    // indices into `found`, and how many these are.
    int (*contenders)(const float* y, const float* variance, int n, float best, float best_variance, int* found);
    // The same of many tokens, with weights that `is_wide` and inputs made by `wide_inputs`; null where there are none.
    // `scratch` as for `narrow`, but never null. `wide_gated` writes y.bf16 (tiles) or y.fp32 (lanes); its
    // weights are both bfloat16 or both integers.
    void (*wide_inputs)(const float* x, int C, const Inputs& out);
    void (*wide)(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
                 void* scratch);
    void (*wide_gated)(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                       const Inputs& x, int T, const Inputs& y, void* scratch);
    // `token_codes` of x[C], and y as in `narrow`, of ternary weights and any number of tokens. Sums of codes are
    // integers, the same on every instruction set; `scratch` as for `wide`.
    void (*ternary_inputs)(const float* x, int C, const Inputs& out);
    void (*ternary)(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
                    const uint8_t* next, void* scratch);

    // out[c] = x[c] / rms(x) * weight[c]
    void (*rms_norm)(const float* x, const float* weight, float eps, int C, float* out);
    // out[c] = (x[c] - mean) / sd * weight[c] + bias[c]
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int C, float* out);
    // The two halves of x[D] turned by the angles with these cosines and sines [D / 2], then multiplied by `scale`.
    void (*rotate)(float* x, const float* cos, const float* sin, int D, float scale);
    // x[n] = activation(x) * y, or activation(x) where y is null
    void (*activate)(float* x, const float* y, Activation activation, int n);
    // x[n] = gelu(x + bias), by the error function, to 1e-6
    void (*gelu_erf)(float* x, const float* bias, int n);
    // The largest of x[n] and the sum of exp(x - largest)
    void (*softmax_sums)(const float* x, int n, float* largest, float* sum);
    float (*largest)(const float* x, int n);
    void (*add)(float* x, const float* y, int n);

    // Keys and values [D] of one token into slot `slot`; `keys` and `values` point at the page's layer and head.
    void (*store)(const float* k, const float* v, int D, int slot, uint8_t* keys, uint8_t* values, Kv kv);
    // Online softmax over pages; the result of a token does not depend on n. Narrow: any n. Wide: tiles, bf16 cache.
    void (*attention)(const Attention& job);
    void (*attention_wide)(const Attention& job);

    // Attention in training, of pieces of rows of one key/value head, with attention_scratch(...) floats of `scratch`.
    // The backward pass writes the gradients of keys and values in float32, [key][width]: first the prefix's, padded,
    // then those of the rows from the first piece's on; and rounds those of whole rows into grad_k and grad_v.
    void (*training_forward)(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* scratch);
    void (*training_backward)(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* scratch,
                              float* grad_k, float* grad_v);
    // out[at + d] = sum over i of from[i][d], for d < D, rounded to bfloat16 or not
    void (*round_sum)(const float* const* from, int count, int D, void* out, size_t at, bool bf16);
    // Thin products of LoRA. m[lines][width] as their words, of S lines each, [lines / S][stride], with lanes that are
    // zeros up to a multiple of 16; or of S columns, [width / S][stride], with lines as lanes.
    void (*words_of_lines)(const Lines& m, int lines, int width, float* out, int stride);
    void (*words_of_columns)(const Lines& m, int lines, int width, float* out, int stride);
    void (*lora_low)(const LowJob& job);
    // out[l][c] = sum over t of low[t][l] * x[t][c], for `width` <= LORA_COLUMNS columns, a line's length in `out`, and
    // words `low` [T / S][stride]; `scratch` has LORA_TOKENS * LORA_COLUMNS floats
    void (*lora_gradient)(const float* low, int stride, int lanes, const Lines& x, int T, int width, float* scratch,
                          float* out);
    // T tokens x (T, C) as codes, and products of codes
    void (*encode_tokens)(const Lines& x, int T, int C, const CodedTokens& out);
    void (*code_strip)(const StripJob& job);
    // Products of bfloat16 weights, where the CPU `trains_in_pairs`, else null. The first two numbers, the next two,
    // ... of each of m's lines, at most DENSE_STRIP, as words [pairs][DENSE_STRIP]; up to 16 lanes the last line stands
    // again.
    void (*turned_words)(const Lines& m, int lines, int pairs, float* out);
    // Words of two lines each, in strips of `each` columns, a multiple of 16: strip i is [lines / 2][each] at
    // out + i * apart. Beyond the last line stand zeros, beyond the last column any number.
    void (*words_in_strips)(const Lines& m, int lines, int width, int each, float* out, size_t apart);
    // y (T, width) = the sum of all terms and, unless it is null, the bias, rounded; width <= DENSE_STRIP
    void (*dense_lines)(const DenseTerm* terms, int count, int T, int width, const uint16_t* bias, const Lines& y);
    // total[r * row + c] += sum over t of grad[t][r] * x[t][c], for rows <= DENSE_ROWS and width <= DENSE_STRIP, from
    // words of two tokens: grad [pairs][DENSE_ROWS], x [pairs][DENSE_STRIP]
    void (*dense_gradient)(const float* grad, int rows, const float* x, int pairs, int width, float* total, size_t row);
    // Functions of training, for rows, or numbers where there are none, [begin, end); `norm_gradient` adds to
    // `grad_weight` [C].
    void (*norm)(const NormJob& job, size_t begin, size_t end);
    void (*norm_gradient)(const NormJob& job, size_t begin, size_t end, float* grad_weight);
    void (*rotation)(const RotateJob& job, size_t begin, size_t end);
    void (*gate)(const GateJob& job, size_t begin, size_t end);
    void (*gate_gradient)(const GateJob& job, size_t begin, size_t end);
    void (*loss)(const LossJob& job, size_t begin, size_t end);
    void (*adam)(const AdamJob& job, size_t begin, size_t end);
    void (*add_scaled)(const SumJob& job, size_t begin, size_t end);
    double (*absolute_sum)(const RoundJob& job, size_t begin, size_t end);
    void (*round_ternary)(const RoundJob& job, size_t begin, size_t end);

    // Row `row` of W as floats [cols]: the token embedding
    void (*row)(const Weights& w, int row, float* out);
    // Measures the peak: multiply-adds per second of the int8 (kind 0) or bf16 (kind 1) product in registers
    double (*peak)(int kind);
    // Reads `bytes` at `data` as the kernels do; returns a checksum, so that the reads are not left out
    uint64_t (*read)(const uint8_t* data, size_t bytes);
};

static inline bool is_wide(const Kernels& k, Format format) {
    return k.wide_kind != Wide::none && !is_ternary(format) && format != Format::fp32 &&
           (format != Format::bf16 || k.wide_bf16);
}

constexpr int PANELS = 8;  // blocks of rows that a wide product unpacks at a time
constexpr size_t wide_scratch(int cols) { return size_t(cols) * PANELS * ROWS * 2 + 4096; }

const Kernels& kernels();  // those of this CPU, or of RIYAZ_ISA

}  // namespace riyaz
