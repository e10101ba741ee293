// The table of kernels that each instruction set provides; simd/dispatch.cpp chooses one when the program starts.
//
// Legend: T tokens, C columns (inputs) of a matrix, R rows (outputs), D head size, G query heads of a key/value head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/layout.h"

namespace riyaz {

// The inputs of a matrix product, T tokens in each form that some weights need; `cols` (padded) numbers per token.
// Products of integer weights with few tokens read `codes` and `low`, where x ≈ scale * (256 * code + low) in each
// group of 32 columns; those with many tokens by codes read `codes`, where x ≈ scale * code in each group of
// `many_tokens_group`, in tiles `strips`; all others read `bf16` or `fp32`, int8row `fp32`.
struct Inputs {
    int cols = 0;
    int8_t* codes = nullptr;   // [T][cols], -127 to 127
    int8_t* low = nullptr;     // [T][cols], -127 to 127
    float* scale = nullptr;    // [T][cols / 32]
    float* sum = nullptr;      // [T][cols / 32]: scale * total
    int32_t* total = nullptr;  // [T][cols / 32]: sum of 256 * code + low; of many tokens: what sums begin with
    uint16_t* bf16 = nullptr;  // [T][cols]
    float* fp32 = nullptr;     // [T][cols]
    int many_tokens_group = MANY_TOKENS_GROUP;  // 32 or 64
    // What products of ternary weights read: x ≈ scale * code with one scale for all numbers of a token, as in training
    int8_t* token_codes = nullptr;   // [T][cols], -127 to 127
    float* token_scale = nullptr;    // [T]
    int32_t* token_total = nullptr;  // [T][cols / 16]: sums of codes
    // bfloat16 [cols padded to 32 / 32][strip rows][32], so that a tile of 16 tokens, from any one on, is 1 KB of
    // memory
    uint16_t* strips = nullptr;
    int strip_rows = 0;  // at least T padded to 32, behind any token

    Inputs from(int t) const;  // the inputs of tokens t, t + 1, ...
};

inline Inputs Inputs::from(int t) const {
    Inputs x = *this;
    const size_t numbers = size_t(t) * cols, groups = size_t(t) * (cols / GROUP);
    if (codes) x.codes += numbers, x.scale += groups, x.sum += groups, x.total += groups;
    if (low) x.low += numbers;
    if (bf16) x.bf16 += numbers;
    if (strips) x.strips += t * GROUP;
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
enum class ManyTokens { none, codes, tiles };

struct PackedAttention;  // training/attention_jobs.h
struct RowPiece;
struct NormJob;  // training/functions.h
struct RotateJob;
struct AdamJob;
struct GateJob;
struct LossJob;
struct RoundJob;
struct SumJob;
struct LowJob;  // training/product_jobs.h
struct DenseTerm;
struct StripJob;
struct TileJob;
struct CodedTokens;
struct MatrixView;

struct Kernels {
    const char* name;
    ManyTokens many_tokens_by;
    bool many_tokens_bf16;  // whether products with many tokens take weights in bfloat16
    bool trains_in_pairs;   // whether training multiplies pairs of bfloat16, if that is its type

#define KERNEL(RESULT, NAME, ARGUMENTS) RESULT(*NAME) ARGUMENTS;
#include "kernels/kernels.inc"
};

// Whether training multiplies bfloat16 weights by `dense_forward` and `dense_backward`
static inline bool has_dense(const Kernels& k) { return k.turned_words != nullptr; }
// Whether they do so in tiles, with LoRAs
static inline bool has_tiles(const Kernels& k) { return k.tile_lines != nullptr; }

static inline bool has_many_tokens(const Kernels& k, Format format) {
    return k.many_tokens_by != ManyTokens::none && !is_ternary(format) && format != Format::fp32 &&
           (format != Format::bf16 || k.many_tokens_bf16);
}

constexpr int PANELS = 8;  // blocks of rows that a product with many tokens unpacks at a time
constexpr size_t product_scratch(int cols) { return size_t(cols) * PANELS * ROWS * 2 + 4096; }

const Kernels& kernels();  // those of this CPU, or of RIYAZ_ISA

}  // namespace riyaz
