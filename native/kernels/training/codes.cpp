// Products of training with frozen weights in codes of 8 bits: a LoRA's part and the rounding are in the same pass, so
// that sums stay in registers from the first column to the last.
#include "kernels/codes.h"
#include "kernels/chunks.h"
#include "kernels/isa.h"
#include "kernels/training/products.h"
#include "training/product_jobs.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

// Sums of BLOCKS blocks of 16 rows times TOKENS tokens stand in registers, as integers and as floats.
#if defined(__AVX512F__)
constexpr int BLOCKS = 2, TOKENS = 6;
#else
constexpr int BLOCKS = 1, TOKENS = 2;
#endif

using Tile = F[TOKENS][BLOCKS];

// Adds the products of a term to those of tokens t, t + 1, ..., whose numbers are `tokens`, and the rows from `row` on.
INLINE void add_term(const CodeTerm& term, const int* tokens, int row, Tile& sums) {
    const uint8_t* w = term.codes + 4 * row;
    const float* scale = term.scale + row;
    CodedTokens x[TOKENS];
#pragma GCC unroll 6
    for (int i = 0; i < TOKENS; i++) x[i] = term.x.from(tokens[i], 0);
    for (int g = 0; g < term.groups; g++, scale += STRIP) {
        Sums codes[TOKENS][BLOCKS];
#pragma GCC unroll 6
        for (int i = 0; i < TOKENS; i++)
#pragma GCC unroll 2
            for (int p = 0; p < BLOCKS; p++) codes[i][p] = (Sums)iset(x[i].total[g]);
        for (int step = 0; step < CODE_STEPS; step++, w += STEP_BYTES) {
            B rows[BLOCKS];
#pragma GCC unroll 2
            for (int p = 0; p < BLOCKS; p++) rows[p] = load_bytes(w + 64 * p);
#pragma GCC unroll 6
            for (int i = 0; i < TOKENS; i++) {
                const B own = spread(x[i].codes + g * CODE_GROUP + 4 * step);
#pragma GCC unroll 2
                for (int p = 0; p < BLOCKS; p++) codes[i][p] = (Sums)dot_bytes((I)codes[i][p], rows[p], own);
            }
        }
#pragma GCC unroll 2
        for (int p = 0; p < BLOCKS; p++) {
            const F of_rows = load(scale + ROWS * p);
#pragma GCC unroll 6
            for (int i = 0; i < TOKENS; i++)
                sums[i][p] = fma(mul(of_rows, set(x[i].scale[g])), to_float((I)codes[i][p]), sums[i][p]);
        }
    }
}

// One word of `low`: S neighbouring numbers
template <int S>
INLINE auto low_word(const MatrixView& line, int word) {
    if constexpr (S == 2)
        return spread((const uint8_t*)line.data + 4 * word);
    else
        return set(line.bf16 ? from_bf16(((const uint16_t*)line.data)[word]) : ((const float*)line.data)[word]);
}

template <int S>
INLINE void add_low(const StripJob& job, const int* tokens, int row, Tile& sums) {
    MatrixView low[TOKENS];
#pragma GCC unroll 6
    for (int i = 0; i < TOKENS; i++) low[i] = job.low.from(size_t(tokens[i]), 0);
    for (int l = 0; l < job.lanes / S; l++) {
        decltype(load_words<S>(job.up)) up[BLOCKS];
#pragma GCC unroll 2
        for (int p = 0; p < BLOCKS; p++) up[p] = load_words<S>(job.up + l * STRIP + row + ROWS * p);
#pragma GCC unroll 6
        for (int i = 0; i < TOKENS; i++) {
            const auto own = low_word<S>(low[i], l);
#pragma GCC unroll 2
            for (int p = 0; p < BLOCKS; p++) sums[i][p] = add_product(sums[i][p], own, up[p]);
        }
    }
}

// 16 numbers, of which `count` are rows, to y
INLINE void put_rows(const MatrixView& y, F v, int count) {
    if (count <= 0) return;
    const int n = count < ROWS ? count : ROWS;
    if (y.bf16)
        store_some((uint16_t*)y.data, v, n);
    else
        store_some((float*)y.data, v, n);
}

template <int S>
INLINE void tile(const StripJob& job, int t, int row) {
    int tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = t + i < job.T ? t + i : job.T - 1;  // the last is computed again
    Tile sums;
#pragma GCC unroll 6
    for (int i = 0; i < TOKENS; i++)
#pragma GCC unroll 2
        for (int p = 0; p < BLOCKS; p++)
            sums[i][p] = job.begins ? zero() : load(job.results + tokens[i] * STRIP + row + ROWS * p);
    for (int k = 0; k < job.count; k++) add_term(job.terms[k], tokens, row, sums);
    if (job.ends) add_low<S>(job, tokens, row, sums);
#pragma GCC unroll 6
    for (int i = 0; i < TOKENS; i++) {
        if (t + i >= job.T) break;
        if (!job.ends) {
#pragma GCC unroll 2
            for (int p = 0; p < BLOCKS; p++) store(job.results + (t + i) * STRIP + row + ROWS * p, sums[i][p]);
            continue;
        }
        const MatrixView y = job.y.from(size_t(t + i), size_t(row));
        if (BLOCKS == 2 && y.bf16 && job.width == STRIP) {
            store_bytes((void*)y.data, rounded(sums[i][0], sums[i][BLOCKS - 1]));
            continue;
        }
#pragma GCC unroll 2
        for (int p = 0; p < BLOCKS; p++) put_rows(y.from(0, size_t(ROWS * p)), sums[i][p], job.width - row - ROWS * p);
    }
}

template <int S>
void strip(const StripJob& job) {
    for (int row = 0; row < STRIP; row += BLOCKS * ROWS)
        for (int t = 0; t < job.T; t += TOKENS) tile<S>(job, t, row);
}

template <class N>
void encode_all(const MatrixView& x, int T, int C, const CodedTokens& out) {
    const int whole = C / CODE_GROUP;
    for (int t = 0; t < T; t++) {
        const N* numbers = (const N*)x.data + t * x.row;
        for (int g = 0; g < out.groups; g++, numbers += CODE_GROUP) {
            const CodedTokens to = out.from(t, g);
            N last[CODE_GROUP] = {};
            if (g == whole) memcpy(last, numbers, size_t(C - whole * CODE_GROUP) * sizeof(N));
            const N* group = g == whole ? last : numbers;
            F v[CODE_GROUP / 16];
#pragma GCC unroll 4
            for (int i = 0; i < CODE_GROUP / 16; i++) v[i] = load_some(group + 16 * i, 16);
            *to.total = BEGIN * encode_group(v, CODE_GROUP / 16, to.codes, to.scale);
        }
    }
}

}  // namespace

void encode_tokens(const MatrixView& x, int T, int C, const CodedTokens& out) {
    (x.bf16 ? encode_all<uint16_t> : encode_all<float>)(x, T, C, out);
}

void code_strip(const StripJob& job) { (QUICK_PAIRS && job.low.bf16 ? strip<2> : strip<1>)(job); }

}  // namespace RIYAZ_ISA
}  // namespace riyaz
