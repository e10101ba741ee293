// Flash attention (Dao et al. 2022) of packed rows, forward and backward: see training/attention_jobs.h.
//
// Keys and values of a row are turned into panels of PANEL keys once; lines go through the panels in blocks. Every
// product is one of 6 rows of A, read a word at a time, with vectors of B. A word holds S numbers: a float, or two of
// bfloat16 that stand one behind the other along the axis over which is summed. Sums, weights and gradients of scores
// are in float32; with S = 2 the latter two are rounded to bfloat16 where products begin from them. With AMX's tiles a
// product is one of 16 rows of A, 16 words at a time.
#include "kernels/isa.h"
#include "kernels/training/products.h"
#include "kernels/training/tile_products.h"

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

// Products of the lines' vectors with the turned keys, or values, that some of them see: [line][PANEL]
template <int S>
void scores(const QueryLines& lines, const float* x, const KeyPanel& panel, const float* turned, int D, int width,
            float* out) {
#if defined(RIYAZ_TILES)
    if constexpr (TILED<S>) {
        for (int r = 0; r < lines.count; r += IN_TILES) {
            const int begin = lines.begin(panel, r) / 16, end = (lines.end(panel, r + IN_TILES - 1) + 15) / 16;
            tile_product(x + r * width / S, width / S, turned + 16 * begin, PANEL, width / IN_STEP, end - begin,
                         out + r * PANEL + 16 * begin, PANEL, false);
        }
        return;
    }
#endif
    for (int r = 0; r < lines.count; r += TOGETHER) {
        const int begin = lines.begin(panel, r) / 16, end = (lines.end(panel, r + TOGETHER - 1) + 15) / 16;
        if (begin < end)
            product<S, false>(x + r * width / S, width / S, turned + 16 * begin, PANEL, D / S, end - begin,
                              out + r * PANEL + 16 * begin, PANEL, false);
    }
}

// Adds the rounded numbers of lines times words of b [PANEL / S][width] to the lines' sums
template <int S>
void mix(const QueryLines& lines, const KeyPanel& panel, const float* b, int width) {
#if defined(RIYAZ_TILES)
    if constexpr (TILED<S>) {
        for (int r = 0; r < lines.count; r += IN_TILES) {
            const int begin = lines.begin(panel, r) / IN_STEP;
            const int end = padded_tokens<S>(lines.end(panel, r + IN_TILES - 1)) / IN_STEP;
            if (begin < end)
                tile_product(lines.rounded + r * PANEL / S + 16 * begin, PANEL / S, b + 16 * begin * width, width,
                             end - begin, width / 16, lines.sums + r * width, width, true);
        }
        return;
    }
#endif
    for (int r = 0; r < lines.count; r += TOGETHER) {
        const int begin = lines.begin(panel, r) / S, end = (lines.end(panel, r + TOGETHER - 1) + S - 1) / S;
        if (begin < end)
            product<S, false>(lines.rounded + r * PANEL / S + begin, PANEL / S, b + begin * width, width, end - begin,
                              width / 16, lines.sums + r * width, width, true);
    }
}

// Adds x of the lines times their weights to the sums of each key, [PANEL][width] and padded_keys of them; S lines
// stand in a word of x and of weights
template <int S>
void gather(const QueryLines& lines, const float* weights, const KeyPanel& panel, const float* x, int width,
            float* sums) {
    constexpr int keys = TILED<S> ? IN_TILES : TOGETHER;
    for (int key = 0; key < panel.count; key += keys) {
        const int place = panel.position + key - lines.first;  // the first token that sees one of these keys
        const int64_t to = (int64_t(place) + keys - 1 + lines.window) * lines.G;
        const int from = place > 0 ? place * lines.G : 0, last = to < lines.count ? int(to) : lines.count;
#if defined(RIYAZ_TILES)
        if constexpr (TILED<S>) {
            const int begin = from / IN_STEP, end = padded_tokens<S>(last) / IN_STEP;
            if (begin < end)
                tile_product(weights + key * MOST_LINES / S + 16 * begin, MOST_LINES / S, x + 16 * begin * width, width,
                             end - begin, width / 16, sums + key * width, width, true);
            continue;
        }
#endif
        const int begin = from / S, end = (last + S - 1) / S;
        if (begin < end)
            product<S, true>(weights + begin * PANEL + key, PANEL, x + begin * width, width, end - begin, width / 16,
                             sums + key * width, width, true);
    }
}

INLINE uint32_t mask_of(int begin, int end, int at) {  // keys at ... at + 15 that lie in [begin, end)
    const int low = begin > at ? begin - at : 0, high = end - at < 16 ? end - at : 16;
    return low < high ? (1u << high) - (1u << low) : 0;
}

void lift(QueryLines& lines, int r, int width, float largest) {
    if (!(largest > lines.level[r])) return;
    const F scale = exp(set(lines.level[r] - largest));
    lines.level[r] = largest;
    store(lines.totals + 16 * r, mul(load(lines.totals + 16 * r), scale));
    float* sums = lines.sums + r * width;
    for (int d = 0; d < width; d += 16) store(sums + d, mul(load(sums + d), scale));
}

// Turns scores into weights, zeros for keys that a line does not see
void weigh(QueryLines& lines, const KeyPanel& panel, int width) {
    const F none = set(-INFINITY), scale = set(lines.scale);
    for (int r = 0; r < lines.padded; r++) {
        const int begin = lines.begin(panel, r), end = r < lines.count ? lines.end(panel, r) : 0;
        float* weights = lines.weights + r * PANEL;
        F largest = none;
        for (int at = 0; at < PANEL; at += 16)
            if (const uint32_t mask = mask_of(begin, end, at))
                largest = max(largest, select(mask, mul(scale, load(weights + at)), none));
        if (begin < end && any_below(set(lines.level[r]), largest)) lift(lines, r, width, max_of(largest));
        const F level = set(lines.level[r]);
        F total = load(lines.totals + 16 * r);
        for (int at = 0; at < PANEL; at += 16) {
            const uint32_t mask = mask_of(begin, end, at);
            const F weight = mask ? select(mask, exp(sub(mul(scale, load(weights + at)), level)), zero()) : zero();
            total = add(total, weight);
            store(weights + at, weight);
        }
        store(lines.totals + 16 * r, total);
    }
}

// Turns scores into weights, and products of gradients with values into gradients of scores
void slope(QueryLines& lines, const KeyPanel& panel) {
    const F scale = set(lines.scale);
    for (int r = 0; r < lines.padded; r++) {
        const int begin = lines.begin(panel, r), end = r < lines.count ? lines.end(panel, r) : 0;
        float *weights = lines.weights + r * PANEL, *slopes = lines.slopes + r * PANEL;
        const F level = set(lines.level[r]), delta = set(lines.delta[r]);
        for (int at = 0; at < PANEL; at += 16) {
            F weight = zero(), slope = zero();
            if (const uint32_t mask = mask_of(begin, end, at)) {
                weight = select(mask, exp(sub(mul(scale, load(weights + at)), level)), zero());
                slope = select(mask, mul(mul(scale, weight), sub(load(slopes + at), delta)), zero());
            }
            store(weights + at, weight), store(slopes + at, slope);
        }
    }
}

INLINE bool none_sees(const QueryLines& lines, const KeyPanel& panel) {
    return lines.begin(panel, 0) >= lines.end(panel, lines.count - 1);
}

// Whether the prefix's panels must be filled for a piece
INLINE bool is_first_behind(const RowPiece* pieces, int i) { return pieces[i].before && !(i && pieces[i - 1].before); }

template <int S>
void forward_lines(const PackedAttention& job, const RowPiece& piece, int head, int token, Scratch& s) {
    QueryLines& lines = s.lines;
    const int panels = int(panels_of(piece.before) + panels_of(piece.last));
    for (int index = 0; index < panels; index++) {
        const KeyPanel panel = s.panel(piece, index);
        if (none_sees(lines, panel)) continue;
        scores<S>(lines, lines.q, panel, panel.turned, job.D, s.width, lines.weights);
        weigh(lines, panel, s.width);
        if constexpr (S == 2) round_lines(lines.weights, lines.padded, panel.count, lines.rounded);
        mix<S>(lines, panel, panel.values, s.width);
    }
    for (int r = 0; r < lines.count; r++) {
        const size_t at = place(job, piece, head, token, r);
        const float total = sum_of(load(lines.totals + 16 * r));
        job.sums[at] = lines.level[r] + logf(total);
        from_floats(lines.sums + r * s.width, set(1.0f / total), job.D, job.out, at * job.D, job.bf16);
    }
}

// `own`: the place of the row's first key among the sums of gradients
template <int S>
void backward_lines(const PackedAttention& job, const RowPiece& piece, int head, int token, Scratch& s, size_t own,
                    float* grad_k, float* grad_v) {
    QueryLines& lines = s.lines;
    const int panels = int(panels_of(piece.before) + panels_of(piece.last)), end = lines.padded;
    for (int index = 0; index < panels; index++) {
        const KeyPanel panel = s.panel(piece, index);
        if (none_sees(lines, panel)) continue;
        const bool prefix = panel.position < piece.before;
        const size_t to = (panel.position + (prefix ? 0 : own - piece.before)) * s.width;
        scores<S>(lines, lines.q, panel, panel.turned, job.D, s.width, lines.weights);
        scores<S>(lines, lines.grad, panel, panel.values, job.D, s.width, lines.slopes);
        slope(lines, panel);
        if constexpr (S == 2) round_lines(lines.slopes, end, panel.count, lines.rounded);
#if defined(RIYAZ_TILES)
        if constexpr (TILED<S>) {
            turn_pairs(lines.weights, end, padded_tokens<1>(panel.count), MOST_LINES / S, lines.two_weights);
            turn_pairs(lines.slopes, end, padded_tokens<1>(panel.count), MOST_LINES / S, lines.two_slopes);
        }
#endif
        if constexpr (S == 2 && !TILES) {
            round_two(lines.weights, end, padded_keys(panel.count), lines.two_weights);
            round_two(lines.slopes, end, padded_keys(panel.count), lines.two_slopes);
        }
        gather<S>(lines, lines.two_weights, panel, lines.two_grad, s.width, grad_v + to);
        gather<S>(lines, lines.two_slopes, panel, lines.two_q, s.width, grad_k + to);
        mix<S>(lines, panel, panel.keys, s.width);
    }
    for (int r = 0; r < lines.count; r++) {
        const size_t at = place(job, piece, head, token, r) * job.D;
        from_floats(lines.sums + r * s.width, set(1.0f), job.D, job.grad_q, at, job.bf16);
    }
}

template <int S>
void forward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* memory) {
    Scratch s = laid_out<S>(job, memory);
    for (int i = 0; i < count; i++) {
        fill_panels<S>(job, s, pieces[i], head, is_first_behind(pieces, i));
        for (int token = pieces[i].first; token < pieces[i].last;) {
            const int tokens = begin_lines<S>(job, pieces[i], head, token, s);
            forward_lines<S>(job, pieces[i], head, token, s);
            token += tokens;
        }
    }
}

template <int S>
void backward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* memory, float* grad_k,
              float* grad_v) {
    Scratch s = laid_out<S>(job, memory);
    const size_t behind = padded_keys(job.prefix);
    memset(grad_k, 0, sizeof(float) * behind * s.width), memset(grad_v, 0, sizeof(float) * behind * s.width);
    int base = -1;  // where the first row behind the prefix begins
    for (int i = 0; i < count; i++) {
        const RowPiece& piece = pieces[i];
        const bool is_prefix = job.prefix && !piece.before;
        if (!is_prefix && base < 0) base = piece.start;
        const size_t own = is_prefix ? 0 : behind + piece.start - base;
        if (!is_prefix) {
            memset(grad_k + own * s.width, 0, sizeof(float) * piece.last * s.width);
            memset(grad_v + own * s.width, 0, sizeof(float) * piece.last * s.width);
        }
        fill_panels<S>(job, s, piece, head, is_first_behind(pieces, i));
        for (int token = piece.first; token < piece.last;) {
            const int tokens = begin_lines<S>(job, piece, head, token, s);
            backward_lines<S>(job, piece, head, token, s, own, grad_k, grad_v);
            token += tokens;
        }
        for (int i = 0; piece.whole && i < piece.last; i++) {
            const size_t at = (size_t(piece.start + i) * job.K + head) * job.D, from = (own + i) * s.width;
            from_floats(grad_k + from, set(1.0f), job.D, job.grad_k, at, job.bf16);
            from_floats(grad_v + from, set(1.0f), job.D, job.grad_v, at, job.bf16);
        }
    }
}

}  // namespace

// Whether the words of a job are pairs of bfloat16: where these are quick, and in tiles, which take whole steps
static bool in_pairs(const PackedAttention& job) {
    return job.bf16 && (QUICK_PAIRS || (TILES && job.D % IN_STEP == 0));
}

void training_forward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* memory) {
#if defined(RIYAZ_TILES)
    configure_tiles();
#endif
    (in_pairs(job) ? forward<2> : forward<1>)(job, pieces, count, head, memory);
}

void training_backward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* memory,
                       float* grad_k, float* grad_v) {
#if defined(RIYAZ_TILES)
    configure_tiles();
#endif
    (in_pairs(job) ? backward<2> : backward<1>)(job, pieces, count, head, memory, grad_k, grad_v);
}

void round_sum(const float* const* from, int count, int D, void* out, size_t at, bool bf16) {
    alignas(64) float sum[MOST_HEAD];
    for (int d = 0; d < D; d += 16) {
        F all = load(from[0] + d);
        for (int i = 1; i < count; i++) all = add(all, load(from[i] + d));
        store(sum + d, all);
    }
    from_floats(sum, set(1.0f), D, out, at, bf16);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
