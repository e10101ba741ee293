// Products of ternary weights: lanes are rows, each input is broadcast, and sums of codes are integers, exact and the
// same on every instruction set. Only what follows on the sums of a group of columns is in float32:
//
//     y = (sum over groups of scale * (sum of code * x - sum of x)) * scale of the token
//
// with codes 0, 1 and 2 for weights of -1, 0 and 1. As in training a token has one scale: sources/ternary.py.
#include "kernels/products/ternary.h"

#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int BLOCKS = 2, TOKENS = 8;  // whose sums stand in registers where there are many tokens
#else
constexpr int BLOCKS = 1, TOKENS = 5;
#endif
#if defined(__AVX512F__)
bool has_byte_tables() {  // AVX512_VBMI, which the first CPUs with AVX512_VNNI lack
    static const bool has = __builtin_cpu_supports("avx512vbmi");
    return has;
}
#endif

constexpr int MANY = 16;          // tokens from which on weights are unpacked to bytes first
constexpr int UNPACKED = 4;       // blocks, which stay in the second cache while tokens pass
constexpr int MOST_TOKENS = 512;  // that pass at once: their totals lie behind the unpacked blocks
static_assert(UNPACKED % BLOCKS == 0 && UNPACKED * ROWS + MOST_TOKENS / TERNARY * 4 <= PANELS * ROWS * 2);

// R blocks times T tokens from token t on
template <int R, int T, bool IS_TRITS>
INLINE void few(const Weights& w, int block, const Inputs& x, int t, const uint8_t* far, const Output& out) {
    F y[R][T];
    for (int r = 0; r < R; r++)
        for (int i = 0; i < T; i++) y[r][i] = zero();
    const uint8_t* start = w.block(block);
    for (int g = 0; g < group_count(w); g++) {
        const Group group(w, g);
        const uint8_t* at = w.ternary_group(block, g);
        const int8_t* codes = x.token_codes + size_t(t) * x.cols + group.first;
        I sums[R][T];
        if constexpr (IS_TRITS)
            add_words<5, R, T>(at, w.step, group.words, codes, x.cols, far + (at - start), sums);
        else if constexpr (IN_PLACE && T <= 2)
            add_in_place<R, T>(at, w.step, group.words, codes, x.cols, far + (at - start), sums);
        else
            add_words<4, R, T>(at, w.step, group.words, codes, x.cols, far + (at - start), sums);
        int32_t totals[T];
        for (int i = 0; i < T; i++) totals[i] = total_of(x, t + i, group);
        add_group<R, T>(w, at, group, totals, sums, y);
    }
    put_rows<R, T>(w, block, y, x, out, t);
}

template <int R, int T, bool IS_TRITS>
void all(const Weights& w, int begin, int end, const Inputs& x, int t, const uint8_t* next, const Output& out) {
    const uint8_t* last = w.block(end);
    int b = begin;
    for (; b + R <= end; b += R) few<R, T, IS_TRITS>(w, b, x, t, ahead(w.block(b), last, next), out);
    for (; R > 1 && b < end; b++) few<1, T, IS_TRITS>(w, b, x, t, ahead(w.block(b), last, next), out);
}

// A block as one byte for every code: [cols / 4][16 rows][4]
template <int FIELDS>
void unpack_block(const Weights& w, int block, uint8_t* out) {
    for (int g = 0; g < group_count(w); g++) {
        const Group group(w, g);
        const uint8_t* at = w.ternary_group(block, g);
        uint8_t* to = out + size_t(group.first) * ROWS;
        for (int b = 0; b < group.words; b++) {
            B fields[FIELDS];
            unpack(load_bytes(at + b * sizeof(TernaryWord)), fields);
            for (int f = 0; f < FIELDS && 4 * (FIELDS * b + f) < group.cols; f++)
                store_bytes(to + size_t(FIELDS * b + f) * 64, fields[f]);
        }
    }
}

// Unpacked blocks from `block` on, and the sums of codes of tokens from `token` on, [T][groups]
struct Panels {
    int block;
    const uint8_t* bytes;
    int token;
    const int32_t* totals;
};

// N of the blocks, from number `first` on, times T tokens from token t on
template <int N, int T>
void tile(const Weights& w, const Panels& panels, int first, const Inputs& x, int t, const Output& out) {
    F y[N][T];
    for (int n = 0; n < N; n++)
        for (int i = 0; i < T; i++) y[n][i] = zero();
    const size_t cols = x.cols, apart = size_t(w.cols) * ROWS;
    const int groups = group_count(w), block = panels.block + first;
    for (int i = 0; i < T; i++)
        for (int n = 0; n < N; n++) prefetch(out.y + (t + i) * out.stride + (block + n) * ROWS);
    for (int g = 0; g < groups; g++) {
        const Group group(w, g);
        const uint8_t* at = panels.bytes + first * apart + size_t(group.first) * ROWS;
        const int8_t* codes = x.token_codes + size_t(t) * cols + group.first;
        I sums[N][T];
        for (int n = 0; n < N; n++)
            for (int i = 0; i < T; i++) sums[n][i] = izero();
        for (int begin = 0, steps = group.cols / 4; begin < steps;) {
            const int end = steps - begin < MOST_SMALL ? steps : begin + MOST_SMALL;
            Sums small[N][T];
#pragma GCC unroll 2
            for (int n = 0; n < N; n++)
#pragma GCC unroll 8
                for (int i = 0; i < T; i++) small[n][i] = (Sums)izero();
            for (int s = begin; s < end; s++) {
                B rows[N];
#pragma GCC unroll 2
                for (int n = 0; n < N; n++) rows[n] = load_bytes(at + n * apart + size_t(s) * 64);
#pragma GCC unroll 8
                for (int i = 0; i < T; i++) {
                    const B own = spread(codes + i * cols + 4 * s);
#pragma GCC unroll 2
                    for (int n = 0; n < N; n++) small[n][i] = (Sums)dot_small((I)small[n][i], rows[n], own);
                }
            }
#pragma GCC unroll 2
            for (int n = 0; n < N; n++)
#pragma GCC unroll 8
                for (int i = 0; i < T; i++) sums[n][i] = iadd(sums[n][i], settled((I)small[n][i]));
            begin = end;
        }
        int32_t totals[T];
        for (int i = 0; i < T; i++) totals[i] = panels.totals[(t + i - panels.token) * groups + g];
        add_group<N, T>(w, w.ternary_group(block, g), group, totals, sums, y);
    }
    put_rows<N, T>(w, block, y, x, out, t);
}

// The tokens from t to `end`, at most T at a time
template <int N, int T>
void tiles(const Weights& w, const Panels& panels, int first, const Inputs& x, int t, int end, const Output& out) {
    for (; t + T <= end; t += T) tile<N, T>(w, panels, first, x, t, out);
    if constexpr (T > 1) tiles<N, T / 2>(w, panels, first, x, t, end, out);
}

// Blocks [begin, end) times at most MOST_TOKENS tokens, [from, to)
void many(const Weights& w, int begin, int end, const Inputs& x, int from, int to, const Output& out,
          uint8_t* scratch) {
    const size_t apart = size_t(w.cols) * ROWS;
    const int groups = group_count(w);
    auto* totals = (int32_t*)(scratch + UNPACKED * apart);
    for (int t = from; t < to; t++)
        for (int g = 0; g < groups; g++) totals[(t - from) * groups + g] = total_of(x, t, Group(w, g));
    for (int b = begin; b < end; b += UNPACKED) {
        const Panels panels{b, scratch, from, totals};
        const int count = end - b < UNPACKED ? end - b : UNPACKED, whole = count / BLOCKS * BLOCKS;
        for (int n = 0; n < count; n++)
            (w.format == Format::trits ? unpack_block<5> : unpack_block<4>)(w, b + n, scratch + n * apart);
        for (int t = from; t < to; t += TOKENS) {
            const int last = t + TOKENS < to ? t + TOKENS : to;
            for (int n = 0; n < whole; n += BLOCKS) tiles<BLOCKS, TOKENS>(w, panels, n, x, t, last, out);
            for (int n = whole; n < count; n++) tiles<1, TOKENS>(w, panels, n, x, t, last, out);
        }
    }
}

// Up to MANY tokens: eight, four, two at a time where there are registers for their sums
template <bool IS_TRITS>
void each(const Weights& w, int begin, int end, const Inputs& x, int T, const uint8_t* next, const Output& out) {
    constexpr int R = REGISTERS >= 32 ? 2 : 1;
    int t = 0;
    if constexpr (REGISTERS >= 32)
        for (; t + 8 <= T; t += 8) all<1, 8, IS_TRITS>(w, begin, end, x, t, next, out);
    if constexpr (REGISTERS >= 16) {
        for (; t + 4 <= T; t += 4) all<1, 4, IS_TRITS>(w, begin, end, x, t, next, out);
        for (; t + 2 <= T; t += 2) all<R, 2, IS_TRITS>(w, begin, end, x, t, next, out);
    }
    for (; t < T; t++) all<R, 1, IS_TRITS>(w, begin, end, x, t, next, out);
}

}  // namespace

void ternary(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride, bool add_,
             const uint8_t* next, void* scratch) {
    const Output out{y, stride, add_};
    if (T >= MANY) {
        for (int t = 0; t < T; t += MOST_TOKENS)
            many(w, begin, end, x, t, t + MOST_TOKENS < T ? t + MOST_TOKENS : T, out, (uint8_t*)scratch);
        return;
    }
#if defined(__AVX512F__)
    if (w.format == Format::trits && T <= 2 && has_byte_tables())
        return trits_by_table(w, begin, end, x, T, y, stride, add_, next);
#endif
    (w.format == Format::trits ? each<true> : each<false>)(w, begin, end, x, T, next, out);
}

void ternary_inputs(const float* x, int C, const Inputs& out) {
    const auto part = [&](int c, float (&padded_)[16]) {  // 16 numbers from column c on
        for (int i = 0; i < 16; i++) padded_[i] = c + i < C ? x[c + i] : 0;
        return load(padded_);
    };
    const auto numbers = [&](int c) {
        float padded_[16];
        return c + 16 <= C ? load(x + c) : part(c, padded_);
    };
    F sizes = zero();
    for (int c = 0; c < C; c += 16) sizes = larger(sizes, numbers(c));
    const float largest = size_of(sizes, sizes);
    const bool finite = largest <= 3.4028234e38f;  // else no codes say that, the scale does
    const float least = largest > 1e-5f ? largest : 1e-5f;
    const F inverse = set(127 / least);
    *out.token_scale = finite ? least / 127 : NAN;
    for (int c = 0; c < out.cols; c += TERNARY) {
        const I codes = finite && c < C ? to_int(mul(numbers(c), inverse)) : izero();
        store_i8(out.token_codes + c, codes);
        out.token_total[c / TERNARY] = isum_of(codes);
    }
}

void ternary_row(const Weights& w, int r, float* out) {
    const int lane = r % ROWS;
    for (int g = 0; g < group_count(w); g++) {
        const Group group(w, g);
        const uint8_t* at = w.ternary_group(r / ROWS, g);
        const float scale = ((const float*)(at + group.scales))[lane];
        const int fields = w.format == Format::trits ? 5 : 4;
        for (int c = 0; c < group.cols; c++) {
            const int b = c / (4 * fields), f = c / 4 % fields;
            int code = (*(const TernaryWord*)(at + b * sizeof(TernaryWord)))[lane][c % 4];
            if (fields == 5) {
                for (int i = 0; i < f; i++) code /= 3;
                code %= 3;
            } else {
                code = code >> 2 * f & 3;
            }
            out[group.first + c] = scale * float(code - 1);
        }
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
