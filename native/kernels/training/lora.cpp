// Thin products of LoRA in training, but those that codes.cpp adds to products of codes.
#include "kernels/chunks.h"
#include "kernels/isa.h"
#include "kernels/training/products.h"
#include "training/attention_jobs.h"
#include "training/product_jobs.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

constexpr int LINES_AHEAD = 16;  // that are prefetched
constexpr int GRADIENTS = 4;     // lanes of a gradient whose sums stand in registers; divides 16
static_assert(TOGETHER == LORA_LINES);

INLINE float float_of(uint16_t x) { return from_bf16(x); }
INLINE float float_of(float x) { return x; }

// Words [lines / S][stride] of the numbers of S lines each, of type Number
template <int S, class Number>
void lines_as_words(const MatrixView& m, int lines, int width, float* out, int stride) {
    for (int l = 0; l < lines; l += S) {
        const Number *own = (const Number*)m.data + l * m.row, *next = own + m.row;
        for (int i = 0; i < width; i += 64 / int(sizeof(Number)))  // lines of other pages come late
            prefetch(own + LINES_AHEAD * m.row + i), prefetch(next + LINES_AHEAD * m.row + i);
        chunks(width, [&](int i, int n) {
            float* to = out + l / S * stride + i;
            if constexpr (S == 1)
                store(to, load_some(own + i, n));
            else if (n == 16 && l + 1 < lines)
                store_bytes(to, paired_lines(own + i, next + i));
            else
                store_bytes(to, paired(load_some(own + i, n), l + 1 < lines ? load_some(next + i, n) : zero()));
        });
    }
}

// Words [width / S][stride] of S neighbouring numbers of each line
template <int S, class Number>
void columns_as_words(const MatrixView& m, int lines, int width, float* out, int stride) {
    for (int l = 0; l < lines; l++) {
        const Number* own = (const Number*)m.data + l * m.row;
        for (int c = 0; c < width; c += S) {
            float* to = out + c / S * stride + l;
            if constexpr (S == 1) {
                *to = float_of(own[c]);
            } else {
                const uint32_t word = own[c] | (c + 1 < width ? uint32_t(own[c + 1]) << 16 : 0);
                memcpy(to, &word, 4);
            }
        }
    }
}

INLINE bool in_pairs(const MatrixView& m) { return QUICK_PAIRS && m.bf16; }

// N lines of C numbers as words: where they stand, or copied to `scratch`; `row` counts words from one to the next
template <int S, int N>
const float* words(const MatrixView& m, int C, float* scratch, ptrdiff_t& row) {
    if (S == 2 ? m.row % 2 == 0 && C % 2 == 0 : !m.bf16) {
        row = ptrdiff_t(m.row) / S;
        return (const float*)m.data;
    }
    row = padded(C, 16);
    for (int i = 0; i < N; i++) columns_as_words<S, uint16_t>(m.from(size_t(i), 0), 1, C, scratch + i * row, 1);
    return scratch;
}

template <int S, int N>
INLINE void low_of(const LowJob& job, int t) {
    ptrdiff_t row;
    const float* x = words<S, N>(job.x.from(size_t(t), 0), job.C, job.scratch, row);
    for (int l = 0; l < job.lanes; l += LORA_COLUMNS) {
        const int lanes = min_of(LORA_COLUMNS, job.lanes - l);
        alignas(64) float sums[N * LORA_COLUMNS];
        product<S, false, N>(x, row, job.words + l, job.lanes, (job.C + S - 1) / S, lanes / 16, sums, LORA_COLUMNS,
                             false);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < lanes; j += 16)
                from_floats(sums + i * LORA_COLUMNS + j, load(job.scales + l + j), 16, job.out,
                            size_t(t + i) * job.out_row + size_t(l + j), job.x.bf16);
    }
}

template <int S>
void low_rows(const LowJob& job) {
    int t = 0;
    for (; t + TOGETHER <= job.T; t += TOGETHER) low_of<S, TOGETHER>(job, t);
    for (; t < job.T; t++) low_of<S, 1>(job, t);
}

template <int S>
void gradient_of(const float* low, int stride, int lanes, const MatrixView& x, int T, int width, float* scratch,
                 float* out) {
    const int vectors = (width + 15) / 16;
    for (int t = 0; t < T; t += LORA_TOKENS) {
        const int tokens = min_of(LORA_TOKENS, T - t);
        words_of_lines(x.from(size_t(t), 0), tokens, width, scratch, LORA_COLUMNS);
        for (int l = 0; l < lanes; l += GRADIENTS)
            product<S, true, GRADIENTS>(low + t / S * stride + l, stride, scratch, LORA_COLUMNS, (tokens + S - 1) / S,
                                        vectors, out + l * LORA_COLUMNS, LORA_COLUMNS, t > 0);
    }
}

}  // namespace

void words_of_lines(const MatrixView& m, int lines, int width, float* out, int stride) {
    const auto run = in_pairs(m) ? lines_as_words<2, uint16_t>
                     : m.bf16    ? lines_as_words<1, uint16_t>
                                 : lines_as_words<1, float>;
    run(m, lines, width, out, stride);
}

void words_of_columns(const MatrixView& m, int lines, int width, float* out, int stride) {
    const auto run = in_pairs(m) ? columns_as_words<2, uint16_t>
                     : m.bf16    ? columns_as_words<1, uint16_t>
                                 : columns_as_words<1, float>;
    run(m, lines, width, out, stride);
}

void lora_low(const LowJob& job) { (in_pairs(job.x) ? low_rows<2> : low_rows<1>)(job); }

void lora_gradient(const float* low, int stride, int lanes, const MatrixView& x, int T, int width, float* scratch,
                   float* out) {
    (in_pairs(x) ? gradient_of<2> : gradient_of<1>)(low, stride, lanes, x, T, width, scratch, out);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
