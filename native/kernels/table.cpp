// The table of kernels of one instruction set; dispatch.cpp chooses among them.
#include "attention.h"
#include "parts.h"

#define RIYAZ_TEXT(name) #name
#define RIYAZ_NAME(name) RIYAZ_TEXT(name)

#if defined(RIYAZ_WIDE_TILES)
#define KIND Wide::tiles
#define IF_TILES(kernel) kernel
#else
#define KIND Wide::lanes
#define IF_TILES(kernel) nullptr
#endif
#if defined(RIYAZ_WIDE_TILES) || defined(RIYAZ_WIDE_LANES)
#define IF_WIDE(kernel) kernel
#else
#undef KIND
#define KIND Wide::none
#define IF_WIDE(kernel) nullptr
#endif

#if defined(RIYAZ_WIDE_LANES) && (defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define BF16 false  // the product of few tokens is as fast
#else
#define BF16 (KIND != Wide::none)
#endif
#if defined(RIYAZ_PAIRS)
#define IF_PAIRS(kernel) kernel
#else
#define IF_PAIRS(kernel) nullptr
#endif

namespace riyaz {
namespace RIYAZ_ISA {

const Kernels& table() {
    static const Kernels all = {
        .name = RIYAZ_NAME(RIYAZ_ISA),
        .wide_kind = KIND,
        .wide_bf16 = BF16,
        .trains_in_pairs = QUICK_PAIRS,
        .inputs = inputs,
        .narrow = narrow,
        .narrow_gated = narrow_gated,
        .sketch = sketch,
        .contenders = contenders,
        .wide_inputs = IF_WIDE(wide_inputs),
        .wide = IF_WIDE(wide),
        .wide_gated = IF_WIDE(wide_gated),
        .ternary_inputs = ternary_inputs,
        .ternary = ternary,
        .rms_norm = rms_norm,
        .layer_norm = layer_norm,
        .rotate = rotate,
        .activate = activate,
        .gelu_erf = gelu_erf,
        .softmax_sums = softmax_sums,
        .largest = largest,
        .add = add_to,
        .store = store_token,
        .attention = attend,
        .attention_wide = IF_TILES(attend_wide),
        .training_forward = training_forward,
        .training_backward = training_backward,
        .round_sum = round_sum,
        .words_of_lines = words_of_lines,
        .words_of_columns = words_of_columns,
        .lora_low = lora_low,
        .lora_gradient = lora_gradient,
        .encode_tokens = encode_tokens,
        .code_strip = code_strip,
        .turned_words = IF_PAIRS(turned_words),
        .words_in_strips = IF_PAIRS(words_in_strips),
        .dense_lines = IF_PAIRS(dense_lines),
        .dense_gradient = IF_PAIRS(dense_gradient),
        .norm = norm,
        .norm_gradient = norm_gradient,
        .rotation = rotation,
        .gate = gate,
        .gate_gradient = gate_gradient,
        .loss = loss,
        .adam = adam,
        .add_scaled = add_scaled,
        .absolute_sum = absolute_sum,
        .round_ternary = round_ternary,
        .row = row,
        .peak = peak,
        .read = read,
    };
    return all;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
