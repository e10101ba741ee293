// Sums of ternary codes times codes of inputs, for ternary.cpp and what it chooses among.
#pragma once

#include "kernels/isa.h"

namespace riyaz {
namespace RIYAZ_ISA {

// Takes the largest digit to the base 3, worth `unit`, from every byte; returns unit * digit.
INLINE B peel(B& bytes, uint8_t unit) {
    const B whole = bytes, one = byte_set(unit);
    bytes = byte_min(bytes, byte_sub(bytes, one));  // what is below zero wraps around, and is the larger one
    bytes = byte_min(bytes, byte_sub(bytes, one));
    return byte_sub(whole, bytes);
}

// The codes of a word: fields[f] belongs to the inputs 4 f ... 4 f + 3 of the word's columns.
INLINE void unpack(B word, B (&fields)[4]) {
    fields[0] = two_bits<0>(word), fields[1] = two_bits<2>(word);
    fields[2] = two_bits<4>(word), fields[3] = two_bits<6>(word);
}
INLINE void unpack(B word, B (&fields)[5]) {  // 81, 27, 9 and 3 times a code from 0 to 2, as two bits
    fields[4] = two_bits<6>(peel(word, 81));
    fields[3] = two_bits<5>(byte_add(peel(word, 27), byte_set(10)));
    fields[2] = two_bits<3>(peel(word, 9));
    fields[1] = two_bits<2>(byte_add(peel(word, 3), byte_set(2)));
    fields[0] = word;
}

// Rows of R blocks times T tokens over some words, of FIELDS times 4 columns. `at` is the first word of the first
// block; the next block is `step` bytes further on.
template <int FIELDS, int R, int T>
INLINE void add_words(const uint8_t* at, size_t step, int words, const int8_t* x, size_t cols, const uint8_t* far,
                      I (&sums)[R][T]) {
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) sums[r][t] = izero();
    for (int begin = 0; begin < words;) {
        const int end = words - begin < MOST_SMALL / FIELDS ? words : begin + MOST_SMALL / FIELDS;
        I small[R][T];
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) small[r][t] = izero();
        for (int b = begin; b < end; b++) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                prefetch(far + r * step + b * sizeof(TernaryWord));
                B fields[FIELDS];
                unpack(load_bytes(at + r * step + b * sizeof(TernaryWord)), fields);
#pragma GCC unroll 5
                for (int f = 0; f < FIELDS; f++)
#pragma GCC unroll 8
                    for (int t = 0; t < T; t++)
                        small[r][t] = dot_small(small[r][t], fields[f], spread(x + t * cols + 4 * (FIELDS * b + f)));
            }
        }
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) sums[r][t] = iadd(sums[r][t], settled(small[r][t]));
        begin = end;
    }
}

// The same of few tokens without moving bits: place f has a sum of its own, which is 4^f times too large.
template <int R, int T>
INLINE void add_in_place(const uint8_t* at, size_t step, int words, const int8_t* x, size_t cols, const uint8_t* far,
                         I (&sums)[R][T]) {
    I parts[4][R][T];
    for (auto& part : parts)
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) part[r][t] = izero();
    for (int b = 0; b < words; b++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            prefetch(far + r * step + b * sizeof(TernaryWord));
            const B word = load_bytes(at + r * step + b * sizeof(TernaryWord));
#pragma GCC unroll 2
            for (int t = 0; t < T; t++) {
                const int8_t* own = x + t * cols + TERNARY * b;
                parts[0][r][t] = dot_small(parts[0][r][t], in_place<0>(word), spread(own));
                parts[1][r][t] = dot_small(parts[1][r][t], in_place<2>(word), spread(own + 4));
                parts[2][r][t] = dot_small(parts[2][r][t], in_place<4>(word), spread(own + 8));
                parts[3][r][t] = dot_small(parts[3][r][t], in_place<6>(word), spread(own + 12));
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++)
            sums[r][t] = iadd(iadd(parts[0][r][t], halved<2>(parts[1][r][t])),
                              iadd(halved<4>(parts[2][r][t]), halved<6>(parts[3][r][t])));
}

struct Output {
    float* y;
    size_t stride;
    bool add;
};

INLINE int group_count(const Weights& w) { return (w.cols + w.group - 1) / w.group; }

// A group of columns of a matrix, the same in all blocks
struct Group {
    int first, cols, words;
    size_t scales;  // bytes from its first word to its scales

    INLINE_MEMBER Group(const Weights& w, int g) : first(g * w.group) {
        const int width = w.format == Format::trits ? TRITS : TERNARY;
        cols = w.cols - first < w.group ? w.cols - first : w.group;
        words = (cols + width - 1) / width, scales = size_t(words) * sizeof(TernaryWord);
    }
};

// The sum of a token's codes in a group
INLINE int32_t total_of(const Inputs& x, int t, const Group& group) {
    const int32_t* totals = x.token_total + size_t(t) * (x.cols / TERNARY) + group.first / TERNARY;
    int32_t total = 0;
    for (int g = 0; g < group.cols / TERNARY; g++) total += totals[g];
    return total;
}

template <int R, int T>
INLINE void put_rows(const Weights& w, int block, const F (&y)[R][T], const Inputs& x, const Output& out, int t) {
    for (int r = 0; r < R; r++)
        for (int i = 0; i < T; i++)
            put(out.y + (t + i) * out.stride + (block + r) * ROWS, mul(y[r][i], set(x.token_scale[t + i])),
                w.rows - (block + r) * ROWS, out.add);
}

// What follows on the sums of a group; `totals` are the sums of its codes, by token
template <int R, int T>
INLINE void add_group(const Weights& w, const uint8_t* at, const Group& group, const int32_t (&totals)[T],
                      const I (&sums)[R][T], F (&y)[R][T]) {
    for (int i = 0; i < T; i++) {
        const I total = iset(totals[i]);
        for (int r = 0; r < R; r++) {
            const F scale = load((const float*)(at + r * w.step + group.scales));
            y[r][i] = fma(scale, to_float(isub(sums[r][i], total)), y[r][i]);
        }
    }
}

// trits, for up to two tokens, by a table of 128 bytes; only where `has_byte_tables()`
void trits_by_table(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add,
                    const uint8_t* next);

}  // namespace RIYAZ_ISA
}  // namespace riyaz
