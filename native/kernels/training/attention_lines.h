// What attention in training reads: keys and values in panels, queries and their gradients in lines.
#pragma once

#include "kernels/isa.h"
#include "kernels/training/products.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

#if defined(RIYAZ_TILES)
constexpr bool TILES = true;
#else
constexpr bool TILES = false;
#endif
template <int S>
constexpr bool TILED = TILES && S == 2;
constexpr int IN_STEP = 32;     // numbers over which tiles sum at once
constexpr int LINES_AHEAD = 8;  // that are prefetched: a head's lie too far apart for the CPU to do it

// Keys and values of PANEL tokens, or fewer, the first at `position` among those that the row sees
struct KeyPanel {
    float* turned;  // keys [width / S][PANEL] words
    float* keys;    // [PANEL / S][width] words, for the backward pass
    float* values;  // the same; in the backward pass [width / S][PANEL]
    int position, count;
};

// QueryLines of consecutive tokens of a row. With S = 1 two_q is q, and so on; `rounded` is what mix multiplies.
struct QueryLines {
    float *q, *grad;                  // [MOST_LINES][width / S] words
    float *two_q, *two_grad;          // [MOST_LINES / S][width] words: S lines in each
    float* sums;                      // [MOST_LINES][width]: of weights times values, or gradients of q
    float *weights, *slopes;          // [MOST_LINES][PANEL]; slopes: gradients of scores
    float* rounded;                   // [MOST_LINES][PANEL / S] words: the weights, in the backward pass the slopes
    float *two_weights, *two_slopes;  // [MOST_LINES / S][PANEL] words: S lines in each; for tiles turned
    float* totals;                    // [MOST_LINES][16]: sums of weights, by key modulo 16
    float *level, *delta;             // delta: sum of gradient times output
    float scale;                      // of products of q and keys
    int count, first, G;              // line r is of the token at position first + r / G among those that the row sees
    int padded;                       // lines, with those of zeros behind `count`
    int window;

    int position(int r) const { return first + (r < count ? r : count - 1) / G; }
    // The keys of a panel that the lines [r, r + n) see: from, and to
    int begin(const KeyPanel& panel, int r) const {
        const int from = position(r) - window + 1 - panel.position;
        return from > 0 ? from : 0;
    }
    int end(const KeyPanel& panel, int r) const {
        const int to = position(r) + 1 - panel.position;
        return to < panel.count ? to : panel.count;
    }
};

// The panels of a row are those of the prefix, where it sees one, and then its own.
struct Scratch {
    float *panels, *spare;
    size_t form;  // words of one form of a panel
    QueryLines lines;
    int width;

    // A panel of the keys that the queries of a piece see
    KeyPanel panel(const RowPiece& piece, int index) const {
        const int before = int(panels_of(piece.before)), own = index - before;
        float* at = panels + size_t(index) * 3 * form;
        const int position = own < 0 ? index * PANEL : piece.before + own * PANEL;
        const int left = own < 0 ? piece.before - position : piece.last - own * PANEL;
        return {at, at + form, at + 2 * form, position, left < PANEL ? left : PANEL};
    }
};

template <int S>
Scratch laid_out(const PackedAttention& job, float* memory) {
    const int width = padded_width(job.D);
    Scratch s{};
    s.width = width;
    QueryLines& lines = s.lines;
    const auto take = [&](float*& part, size_t words) { part = memory, memory += words; };
    take(lines.q, MOST_LINES * width / S), take(lines.grad, MOST_LINES * width / S);
    take(lines.sums, MOST_LINES * width);
    take(lines.weights, MOST_LINES * PANEL), take(lines.slopes, MOST_LINES * PANEL);
    take(lines.totals, MOST_LINES * 16), take(lines.level, MOST_LINES), take(lines.delta, MOST_LINES);
    if constexpr (S == 1) {
        lines.two_q = lines.q, lines.two_grad = lines.grad;
        lines.two_weights = lines.weights, lines.two_slopes = lines.slopes;
        lines.rounded = job.grad ? lines.slopes : lines.weights;
    } else {
        take(lines.two_q, MOST_LINES * width / S), take(lines.two_grad, MOST_LINES * width / S);
        take(lines.two_weights, MOST_LINES * PANEL / S), take(lines.two_slopes, MOST_LINES * PANEL / S);
        take(lines.rounded, MOST_LINES * PANEL / S);
    }
    lines.G = job.H / job.K, lines.window = job.window, lines.scale = 1.0f / sqrtf(float(job.D));
    s.form = size_t(PANEL) * width / S;
    take(s.spare, s.form), s.panels = memory;
    return s;
}

// Asks memory for line `at` of x (..., D).
INLINE void prefetch_line(const PackedAttention& job, const void* x, size_t at) {
    const size_t size = size_t(job.D) * (job.bf16 ? sizeof(uint16_t) : sizeof(float));
    for (size_t i = 0; i < size; i += 64) prefetch((const char*)x + at * size + i);
}

// `tokens` up to a multiple of 16, or of what tiles sum over
template <int S>
constexpr int padded_tokens(int tokens) {
    constexpr int each = TILED<S> ? IN_STEP : 16;
    return (tokens + each - 1) / each * each;
}

// x[first + i][head] as words, for i < count, and zeros behind them: [PANEL][width / S]
template <int S>
void fill(const PackedAttention& job, const void* x, size_t first, int count, int head, int width, float* out) {
    for (int i = 0; i < count; i++) {
        const size_t at = (first + i) * job.K + head;
        if (i + LINES_AHEAD < count) prefetch_line(job, x, at + size_t(LINES_AHEAD) * job.K);
        to_words<S>(x, at * job.D, job.bf16, job.D, out + i * width / S);
    }
    memset(out + count * width / S, 0, sizeof(float) * (padded_tokens<S>(count) - count) * width / S);
}

// Numbers of tokens as fill leaves them -> turned [width / S][PANEL], or with S tokens in each word [PANEL / S][width]
template <int S>
void arrange(const float* x, int width, int count, bool turned, float* out) {
    if (turned) return turn(x, width / S, count, out);
    if constexpr (S == 2) two_together(x, padded_tokens<S>(count), width, out);  // with S = 1 `fill` wrote to out
}

// Fills the own panels of a piece, and those of the prefix `with_prefix`.
template <int S>
void fill_panels(const PackedAttention& job, const Scratch& s, const RowPiece& piece, int head, bool with_prefix) {
    const int before = int(panels_of(piece.before)), all = before + int(panels_of(piece.last));
    for (int index = with_prefix ? 0 : before; index < all; index++) {
        const KeyPanel panel = s.panel(piece, index);
        const size_t first = index < before ? panel.position : piece.start + panel.position - piece.before;
        float* const keys = S == 1 && job.grad ? panel.keys : s.spare;
        fill<S>(job, job.k, first, panel.count, head, s.width, keys);
        arrange<S>(keys, s.width, panel.count, true, panel.turned);
        if (job.grad) arrange<S>(keys, s.width, panel.count, false, panel.keys);
        float* const values = S == 1 && !job.grad ? panel.values : s.spare;
        fill<S>(job, job.v, first, panel.count, head, s.width, values);
        arrange<S>(values, s.width, panel.count, job.grad != nullptr, panel.values);
    }
}

INLINE size_t place(const PackedAttention& job, const RowPiece& piece, int head, int token, int r) {
    const int G = job.H / job.K;
    return size_t(piece.start + token + r / G) * job.H + head * G + r % G;
}

// The sum of gradient times output of a line
float delta_of(const PackedAttention& job, size_t line, int width) {
    alignas(64) float grad[MOST_HEAD], out[MOST_HEAD];
    to_floats(job.grad, line * job.D, job.bf16, job.D, grad);
    to_floats(job.out, line * job.D, job.bf16, job.D, out);
    F sum = zero();
    for (int d = 0; d < width; d += 16) sum = fma(load(grad + d), load(out + d), sum);
    return sum_of(sum);
}

// The lines of a piece from `token` of its row on; returns how many tokens they are of.
template <int S>
int begin_lines(const PackedAttention& job, const RowPiece& piece, int head, int token, Scratch& s) {
    QueryLines& lines = s.lines;
    const int most = MOST_LINES / lines.G, left = piece.last - token, tokens = left < most ? left : most;
    lines.count = tokens * lines.G, lines.first = piece.before + token;
    const int end = TILED<S> ? padded_tokens<S>(lines.count) : padded_keys(lines.count), words = s.width / S;
    lines.padded = end;
    for (int r = 0; r < lines.count; r++) {
        const size_t at = place(job, piece, head, token, r);
        if (r + LINES_AHEAD < left * lines.G) {
            const size_t next = place(job, piece, head, token, r + LINES_AHEAD);
            prefetch_line(job, job.q, next);
            if (job.grad) prefetch_line(job, job.grad, next), prefetch_line(job, job.out, next);
        }
        to_words<S>(job.q, at * job.D, job.bf16, job.D, lines.q + r * words);
        if (!job.grad) continue;
        to_words<S>(job.grad, at * job.D, job.bf16, job.D, lines.grad + r * words);
        lines.delta[r] = delta_of(job, at, s.width), lines.level[r] = job.sums[at];
    }
    memset(lines.q + lines.count * words, 0, sizeof(float) * (end - lines.count) * words);
    memset(lines.sums, 0, sizeof(float) * end * s.width);
    if (job.grad) {
        memset(lines.grad + lines.count * words, 0, sizeof(float) * (end - lines.count) * words);
        if constexpr (S == 2)
            two_together(lines.q, end, s.width, lines.two_q), two_together(lines.grad, end, s.width, lines.two_grad);
        return tokens;
    }
    for (int r = 0; r < end; r++) lines.level[r] = -INFINITY;
    memset(lines.totals, 0, sizeof(float) * end * 16);
    return tokens;
}

}  // namespace
}  // namespace RIYAZ_ISA
}  // namespace riyaz
