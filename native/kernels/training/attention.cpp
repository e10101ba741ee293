// Flash attention (Dao et al. 2022) of packed rows, forward and backward: see training/attention_jobs.h.
//
// Keys and values of a row are turned into panels of PANEL keys once; lines go through the panels in blocks. Every
// product is one of 6 rows of A, read a word at a time, with vectors of B. A word holds S numbers: a float, or two of
// bfloat16 that stand one behind the other along the axis over which is summed. Sums, weights and gradients of scores
// are in float32; with S = 2 the latter two are rounded to bfloat16 where products begin from them. With AMX's tiles a
// product is one of 16 rows of A, 16 words at a time.
#include "kernels/training/attention_lines.h"
#include "kernels/training/tile_products.h"

namespace riyaz {
namespace RIYAZ_ISA {

namespace {

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
