// What products of training share with their kernels: those with frozen codes, LoRA's thin ones, and dense ones.
//
// A thin product has a LoRA's rank as one side. Kernels read one of its operands as words of S numbers that stand
// beside each other along the axis over which is summed: S is 2 for bfloat16 where the CPU `trains_in_pairs`, with the
// numbers left as they are, else 1 with floats.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/layout.h"

namespace riyaz {

constexpr int CODE_GROUP = 64;              // columns with one scale
constexpr int STRIP = 2 * ROWS;             // rows whose codes stand together
constexpr int CODE_STEPS = CODE_GROUP / 4;  // columns of a group whose codes stand in one word
constexpr int STEP_BYTES = 4 * STRIP;

constexpr int LORA_COLUMNS = 64;  // of the gradient of A or Bᵀ that one task computes
constexpr int LORA_TOKENS = 512;  // whose words stand in the second cache while these are summed
constexpr int LORA_LINES = 6;     // tokens whose sums stand in registers

// A matrix in memory, of float or bfloat16: line i begins at i * row
struct MatrixView {
    const void* data;
    size_t row;
    bool bf16;

    MatrixView from(size_t line, size_t column) const {
        const size_t at = line * row + column;
        return {bf16 ? (const void*)((const uint16_t*)data + at) : (const void*)((const float*)data + at), row, bf16};
    }
};

// Tokens as codes: number c of token t is about scale[t * groups + c / CODE_GROUP] * codes[t * cols + c]. `total`: what
// a group's sum of products begins with.
struct CodedTokens {
    int groups;
    int8_t* codes;  // [T][cols], cols = groups * CODE_GROUP
    float* scale;   // [T][groups]
    int32_t* total;

    CodedTokens from(int token, int group) const {
        const size_t at = size_t(token) * groups + group;
        return {groups, codes + at * CODE_GROUP, scale + at, total + at};
    }
};

// `groups` groups of a strip of weights, times tokens: weight = scale * (code - 128)
struct CodeTerm {
    const uint8_t* codes;  // [groups][CODE_STEPS][STRIP][4]
    const float* scale;    // [groups][STRIP]
    int groups;
    CodedTokens x;
};

// y[t][r] = sum of the products of all terms, plus sum over l < lanes of low[t][l] * up[l][r], rounded to the type of
// y, for T tokens and the first `width` rows of a strip. A job that does not begin adds to `results` [T][STRIP], one
// that does not end leaves its sums there.
struct StripJob {
    const CodeTerm* terms;
    int count, T, width;
    bool begins, ends;
    float* results;
    MatrixView low;   // (T, lanes)
    int lanes;        // a multiple of 16, or 0
    const float* up;  // words [lanes / S][STRIP]
    MatrixView y;     // (T, width), written
};

// out[t * out_row + l] = scales[l] * sum over c < C of x[t][c] * words[c][l], rounded to the type of x, for T tokens
// and l < lanes, a multiple of 16. `scratch` has LORA_LINES * C floats, C a multiple of 16 there.
struct LowJob {
    MatrixView x;
    int T, C, lanes;
    const float *words, *scales;
    void* out;
    size_t out_row;
    float* scratch;
};

constexpr int DENSE_STRIP = 64;  // columns of a product whose words stand beside each other
constexpr int DENSE_ROWS = 48;   // rows of a gradient of weights that one task computes

// `pairs` pairs of numbers of each line of x, times words [pairs][DENSE_STRIP] of pairs
struct DenseTerm {
    MatrixView x;
    const float* words;
    int pairs;
};

constexpr int TILE_STRIP = 32;  // numbers of a line in one strip; lines and columns of a product's step
constexpr int TILE_PANEL = 16;  // columns of a panel
constexpr int PANEL_STEP = TILE_STRIP * TILE_PANEL;  // numbers of a panel for one strip

// Lines in steps of 32 numbers: number c of line l is lines[l * line + c / 32 * step + c % 32]
struct TileRun {
    const uint16_t* lines;
    int steps;
    size_t line, step;
};

// The sum over all runs of lines times panels, [steps of all runs][16][16][2] for every 16 columns, on AMX's tiles
struct TileJob {
    const TileRun* runs;
    int count;
    int lines;  // the runs hold a multiple of 32
    const uint16_t* panels;
    size_t panel;  // numbers from one panel to the next
    int width;     // columns
    float scale = 1;
    bool large = false;  // all results together do not fit the second cache

    int pairs() const { return (width + 2 * TILE_PANEL - 1) / (2 * TILE_PANEL); }
};

}  // namespace riyaz
