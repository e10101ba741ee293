// Products of bfloat16 matrices in training, by pairs of numbers. Sums are in float32.
#include "kernels/chunks.h"
#include "kernels/isa.h"
#include "kernels/training/products.h"
#include "training/product_jobs.h"

#if defined(RIYAZ_PAIRS)

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

constexpr int LINES = TOGETHER;  // tokens, or rows of a gradient, whose sums stand in registers
constexpr int LEFT = 4;          // the same of what is left of DENSE_ROWS or of a narrow gradient

// N lines of all terms, rounded
template <int N>
INLINE void lines_of(const DenseTerm* terms, int count, size_t t, int width, const uint16_t* bias,
                     const MatrixView& y) {
    alignas(64) float sums[N * DENSE_STRIP];
    for (int i = 0; i < count; i++) {
        const DenseTerm& term = terms[i];
        product<2, false, N>((const float*)term.x.from(t, 0).data, ptrdiff_t(term.x.row) / 2, term.words, DENSE_STRIP,
                             term.pairs, (width + 15) / 16, sums, DENSE_STRIP, i > 0);
    }
    for (int i = 0; i < N; i++) {
        float* from = sums + i * DENSE_STRIP;
        if (bias) chunks(width, [&](int j, int n) { store(from + j, add(load(from + j), load_some(bias + j, n))); });
        auto* to = (uint16_t*)y.from(t + size_t(i), 0).data;
        int r = 0;
        for (; r + 32 <= width; r += 32) store_bytes(to + r, rounded(load(from + r), load(from + r + 16)));
        chunks(width - r, [&](int j, int n) { store_some(to + r + j, load(from + r + j), n); });
    }
}

// N rows of a gradient, of whole vectors
template <int N>
INLINE void rows_of(const float* grad, const float* x, int pairs, int width, float* total, size_t row) {
    product<2, true, N>(grad, DENSE_ROWS, x, DENSE_STRIP, pairs, width / 16, total, ptrdiff_t(row), true);
}

}  // namespace

void dense_lines(const DenseTerm* terms, int count, int T, int width, const uint16_t* bias, const MatrixView& y) {
    int t = 0;
    for (; t + LINES <= T; t += LINES) lines_of<LINES>(terms, count, size_t(t), width, bias, y);
    for (; t < T; t++) lines_of<1>(terms, count, size_t(t), width, bias, y);
}

void dense_gradient(const float* grad, int rows, const float* x, int pairs, int width, float* total, size_t row) {
    int r = 0;
    for (; r + LINES <= rows; r += LINES) rows_of<LINES>(grad + r, x, pairs, width, total + r * row, row);
    for (; r + LEFT <= rows; r += LEFT) rows_of<LEFT>(grad + r, x, pairs, width, total + r * row, row);
    for (; r < rows; r++) rows_of<1>(grad + r, x, pairs, width, total + r * row, row);
    const int whole = width / 16 * 16;
    for (r = 0; whole < width && r < rows; r++) {
        alignas(64) float sums[16];
        product<2, true, 1>(grad + r, DENSE_ROWS, x + whole, DENSE_STRIP, pairs, 1, sums, 16, false);
        for (int c = whole; c < width; c++) total[r * row + c] += sums[c - whole];
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
