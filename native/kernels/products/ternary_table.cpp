// Products of ternary weights at 1.6 bits with one or two tokens, by AVX512_VBMI's table of 128 bytes. Compiled with
// that instruction, which not all CPUs of these sets have: ternary.cpp asks.
//
// The largest of a byte's five digits is taken out and multiplied with its inputs as it is, 81 times too large; the
// others are looked up as four codes of two bits and stay in place, so that their sums are 4^f times too large. All of
// these sums divide without a rest.
#include "kernels/products/ternary.h"

namespace riyaz {
namespace RIYAZ_ISA {

#if defined(__AVX512VBMI__)
namespace {

constexpr uint32_t PER_81 = 0x781948b1;  // times 81: 1 modulo 2^32

struct Table {
    uint8_t codes[128];

    Table() {
        for (int i = 0; i < 128; i++) codes[i] = uint8_t(i % 3 | i / 3 % 3 << 2 | i / 9 % 3 << 4 | i / 27 % 3 << 6);
    }
};

template <int R, int T>
INLINE void add_by_table(const uint8_t* at, size_t step, int words, const int8_t* x, size_t cols, const uint8_t* far,
                         B lower, B upper, I (&sums)[R][T]) {
    I parts[5][R][T];
    for (auto& part : parts)
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) part[r][t] = izero();
    for (int b = 0; b < words; b++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            prefetch(far + r * step + b * sizeof(TernaryWord));
            B rest = load_bytes(at + r * step + b * sizeof(TernaryWord));
            const B largest = peel(rest, 81), codes = _mm512_permutex2var_epi8(lower, rest, upper);
#pragma GCC unroll 2
            for (int t = 0; t < T; t++) {
                const int8_t* own = x + t * cols + TRITS * b;
                parts[0][r][t] = dot_small(parts[0][r][t], in_place<0>(codes), spread(own));
                parts[1][r][t] = dot_small(parts[1][r][t], in_place<2>(codes), spread(own + 4));
                parts[2][r][t] = dot_small(parts[2][r][t], in_place<4>(codes), spread(own + 8));
                parts[3][r][t] = dot_small(parts[3][r][t], in_place<6>(codes), spread(own + 12));
                parts[4][r][t] = dot_small(parts[4][r][t], largest, spread(own + 16));
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) {
            const I four = iadd(iadd(parts[0][r][t], halved<2>(parts[1][r][t])),
                                iadd(halved<4>(parts[2][r][t]), halved<6>(parts[3][r][t])));
            sums[r][t] = iadd(four, itimes(parts[4][r][t], iset(int32_t(PER_81))));
        }
}

template <int R, int T>
INLINE void few(const Weights& w, int block, const Inputs& x, const uint8_t* far, B lower, B upper, const Output& out) {
    F y[R][T];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) y[r][t] = zero();
    const uint8_t* start = w.block(block);
    for (int g = 0; g < group_count(w); g++) {
        const Group group(w, g);
        const uint8_t* at = w.ternary_group(block, g);
        const int8_t* codes = x.token_codes + group.first;
        I sums[R][T];
        add_by_table<R, T>(at, w.step, group.words, codes, x.cols, far + (at - start), lower, upper, sums);
        int32_t totals[T];
        for (int t = 0; t < T; t++) totals[t] = total_of(x, t, group);
        add_group<R, T>(w, at, group, totals, sums, y);
    }
    put_rows<R, T>(w, block, y, x, out, 0);
}

template <int R, int T>
void all(const Weights& w, int begin, int end, const Inputs& x, const uint8_t* next, const Output& out) {
    const Table table;
    const B lower = load_bytes(table.codes), upper = load_bytes(table.codes + 64);
    const uint8_t* last = w.block(end);
    int b = begin;
    for (; b + R <= end; b += R) few<R, T>(w, b, x, ahead(w.block(b), last, next), lower, upper, out);
    for (; b < end; b++) few<1, T>(w, b, x, ahead(w.block(b), last, next), lower, upper, out);
}

}  // namespace

void trits_by_table(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add_,
                    const uint8_t* next) {
    const Output out{y, stride, add_};
    if (T == 1)
        all<2, 1>(w, begin, end, x, next, out);
    else
        all<1, 2>(w, begin, end, x, next, out);
}

#endif

}  // namespace RIYAZ_ISA
}  // namespace riyaz
