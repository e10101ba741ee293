// Attention of rows packed end to end, forward and backward, for training.
//
// Tokens of all rows lie one after the other, behind `prefix` tokens that every row sees. A line is one query head of
// one token. The work is cut into parts, each some rows or a piece of a long one, for one key/value head; how it is
// cut depends on the shapes alone, so results do not depend on the number of threads.
//
// Legend: T tokens, H query heads, K key/value heads, G = H / K, D head size.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/numbers.h"

namespace riyaz {

constexpr int PANEL = 96;       // keys that are read together
constexpr int MOST_LINES = 96;  // lines that read them together, a multiple of TOGETHER
constexpr int TOGETHER = 6;     // lines, or keys, whose sums stand in registers; divides PANEL
constexpr int IN_TILES = 16;    // the same in AMX's tiles
constexpr int MOST_HEAD = 256;  // largest head size

// Tensors are float, or bfloat16 if `bf16`; null where they are not used.
struct PackedAttention {
    bool bf16 = false;
    int H = 0, K = 0, D = 0;
    int prefix = 0, window = 0;                           // window: most keys that a query sees
    const void *q = nullptr, *k = nullptr, *v = nullptr;  // (T, H, D), (T, K, D), (T, K, D)
    void* out = nullptr;                                  // (T, H, D)
    float* sums = nullptr;                                // (T, H): log of the sum of exp(score)
    const void* grad = nullptr;                           // (T, H, D): gradient of `out`
    void *grad_q = nullptr, *grad_k = nullptr, *grad_v = nullptr;
};

INLINE int padded_width(int D) { return (D + 15) / 16 * 16; }  // in floats; the rest are zeros

// Queries [first, last) of a row whose own tokens begin at `start` of the stream, and that sees `before` tokens of the
// prefix: 0 for the prefix itself, which is a row too.
struct RowPiece {
    int start, before, first, last;
    bool whole = false;  // no other piece sees the row's own tokens: the gradients of their keys and values are ready
};

INLINE size_t panels_of(int tokens) { return size_t(tokens + PANEL - 1) / PANEL; }
INLINE int padded_keys(int tokens) { return (tokens + TOGETHER - 1) / TOGETHER * TOGETHER; }
// Floats that a thread needs, at most: 3 forms of each panel, 3 of lines, 2 of scores and 3 halves of them in bfloat16
INLINE size_t attention_scratch(int width, size_t panels) {
    return (3 * panels + 1) * PANEL * width + size_t(MOST_LINES) * (3 * width + 4 * PANEL + 16 + 2);
}

}  // namespace riyaz
