// Thin products of LoRA in training: those whose one side is its rank. Kernels read one operand as words of S numbers
// that stand beside each other along the axis over which is summed: S is 2 for bfloat16 where the CPU
// `trains_in_pairs`, with the numbers left as they are, else 1 with floats.
#pragma once

#include <cstddef>
#include <cstdint>

namespace riyaz {

constexpr int LORA_COLUMNS = 64;  // of the gradient of A or Bᵀ that one task computes
constexpr int LORA_TOKENS = 512;  // whose words stand in the second cache while these are summed
constexpr int LORA_LINES = 6;     // tokens whose sums stand in registers

// A matrix in memory, of float or bfloat16: line i begins at i * row
struct Lines {
    const void* data;
    size_t row;
    bool bf16;

    Lines from(size_t line, size_t column) const {
        const size_t at = line * row + column;
        return {bf16 ? (const void*)((const uint16_t*)data + at) : (const void*)((const float*)data + at), row, bf16};
    }
};

// out[t * out_row + l] = scales[l] * sum over c < C of x[t][c] * words[c][l], rounded to the type of x, for T tokens
// and l < lanes, a multiple of 16. `scratch` has LORA_LINES * C floats, C a multiple of 16 there.
struct LowJob {
    Lines x;
    int T, C, lanes;
    const float *words, *scales;
    void* out;
    size_t out_row;
    float* scratch;
};

}  // namespace riyaz
