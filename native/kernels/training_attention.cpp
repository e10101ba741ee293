// Flash attention (Dao et al. 2022) of packed rows, forward and backward: see training_attention.h.
//
// All arithmetic is in float32. Keys and values of a row are turned into panels of PANEL keys once; lines go through
// the panels in blocks. Every product is one of 6 rows of A, read a number at a time, with vectors of B.
#include "parts.h"
#include "training_products.h"

namespace riyaz {
namespace RIYAZ_ISA {

namespace {

// A line's weights are exp(score - level); the level rises where a score is more than this above it.
constexpr float SLACK = 8;

// Keys and values of PANEL tokens, or fewer, the first at `position` among those that the row sees
struct Panel {
    float* turned;  // keys [width][PANEL]
    float* keys;    // [PANEL][width], for the backward pass
    float* values;  // [PANEL][width]; in the backward pass [width][PANEL]
    int position, count;
};

// Lines of consecutive tokens of a row
struct Lines {
    float *q, *out;           // [MOST_LINES][width]; out: sums of weights times values
    float *grad, *grad_q;     // [MOST_LINES][width]
    float *weights, *slopes;  // [MOST_LINES][PANEL]; slopes: gradients of scores
    float* totals;            // [MOST_LINES][16]: sums of weights, by key modulo 16
    float *level, *delta;     // delta: sum of gradient times output
    int count, first, G;      // line r is of the token at position first + r / G among those that the row sees
    int window;

    int position(int r) const { return first + (r < count ? r : count - 1) / G; }
    // The keys of a panel that the lines [r, r + n) see: from, and to
    int begin(const Panel& panel, int r) const {
        const int from = position(r) - window + 1 - panel.position;
        return from > 0 ? from : 0;
    }
    int end(const Panel& panel, int r) const {
        const int to = position(r) + 1 - panel.position;
        return to < panel.count ? to : panel.count;
    }
};

// The panels of a row are those of the prefix, where it sees one, and then its own.
struct Scratch {
    float *panels, *spare;
    Lines lines;
    int width;

    // A panel of the keys that the queries of a piece see
    Panel panel(const RowPiece& piece, int index) const {
        const int before = int(panels_of(piece.before)), own = index - before;
        float* at = panels + size_t(index) * 3 * PANEL * width;
        const int position = own < 0 ? index * PANEL : piece.before + own * PANEL;
        const int left = own < 0 ? piece.before - position : piece.last - own * PANEL;
        return {at, at + PANEL * width, at + 2 * PANEL * width, position, left < PANEL ? left : PANEL};
    }
};

Scratch laid_out(const PackedAttention& job, float* memory) {
    const int width = padded_width(job.D);
    Scratch s{};
    s.width = width;
    Lines& lines = s.lines;
    float** const wide[] = {&lines.q, &lines.out, &lines.grad, &lines.grad_q};
    for (float** each : wide) *each = memory, memory += MOST_LINES * width;
    lines.weights = memory, lines.slopes = memory += MOST_LINES * PANEL, memory += MOST_LINES * PANEL;
    lines.totals = memory, lines.level = memory += MOST_LINES * 16, lines.delta = memory += MOST_LINES;
    s.spare = memory += MOST_LINES, s.panels = memory + PANEL * width;
    lines.G = job.H / job.K, lines.window = job.window;
    return s;
}

// x[first + i][head] as floats, for i < count, and zeros up to a multiple of 16: [PANEL][width]
void fill(const PackedAttention& job, const void* x, size_t first, int count, int head, int width, float* out) {
    for (int i = 0; i < count; i++)
        to_floats(x, ((first + i) * job.K + head) * job.D, job.bf16, job.D, set(1.0f), out + i * width);
    memset(out + count * width, 0, sizeof(float) * ((count + 15) / 16 * 16 - count) * width);
}

// Fills the own panels of a piece, and those of the prefix `with_prefix`.
void fill_panels(const PackedAttention& job, const Scratch& s, const RowPiece& piece, int head, bool with_prefix) {
    const int before = int(panels_of(piece.before)), all = before + int(panels_of(piece.last));
    for (int index = with_prefix ? 0 : before; index < all; index++) {
        const Panel panel = s.panel(piece, index);
        const size_t first = index < before ? panel.position : piece.start + panel.position - piece.before;
        float* const keys = job.grad ? panel.keys : s.spare;
        fill(job, job.k, first, panel.count, head, s.width, keys);
        turn(keys, s.width, panel.count, panel.turned);
        float* const values = job.grad ? s.spare : panel.values;
        fill(job, job.v, first, panel.count, head, s.width, values);
        if (job.grad) turn(values, s.width, panel.count, panel.values);
    }
}

INLINE size_t place(const PackedAttention& job, const RowPiece& piece, int head, int token, int r) {
    const int G = job.H / job.K;
    return size_t(piece.start + token + r / G) * job.H + head * G + r % G;
}

// The lines of a piece from `token` of its row on; returns how many tokens they are of.
int begin_lines(const PackedAttention& job, const RowPiece& piece, int head, int token, Scratch& s) {
    Lines& lines = s.lines;
    const int most = MOST_LINES / lines.G, left = piece.last - token, tokens = left < most ? left : most;
    lines.count = tokens * lines.G, lines.first = piece.before + token;
    const F scale = set(1.0f / sqrtf(float(job.D))), one = set(1.0f);
    for (int r = 0; r < lines.count; r++) {
        const size_t at = place(job, piece, head, token, r);
        to_floats(job.q, at * job.D, job.bf16, job.D, scale, lines.q + r * s.width);
        if (!job.grad) continue;
        float *grad = lines.grad + r * s.width, *out = lines.out + r * s.width;
        to_floats(job.grad, at * job.D, job.bf16, job.D, one, grad);
        to_floats(job.out, at * job.D, job.bf16, job.D, one, out);
        F sum = zero();
        for (int d = 0; d < s.width; d += 16) sum = fma(load(grad + d), load(out + d), sum);
        lines.delta[r] = sum_of(sum), lines.level[r] = job.sums[at];
    }
    const int end = padded_keys(lines.count), more = (end - lines.count) * s.width;
    memset(lines.q + lines.count * s.width, 0, sizeof(float) * more);
    memset(lines.grad + lines.count * s.width, 0, sizeof(float) * more);
    memset(job.grad ? lines.grad_q : lines.out, 0, sizeof(float) * end * s.width);
    if (job.grad) return tokens;
    for (int r = 0; r < end; r++) lines.level[r] = -INFINITY;
    memset(lines.totals, 0, sizeof(float) * end * 16);
    return tokens;
}

// Products of the lines' vectors with the turned keys, or values, that some of them see: [line][PANEL]
void scores(const Lines& lines, const float* x, const Panel& panel, const float* turned, int D, int width, float* out) {
    for (int r = 0; r < lines.count; r += TOGETHER) {
        const int begin = lines.begin(panel, r) / 16, end = (lines.end(panel, r + TOGETHER - 1) + 15) / 16;
        if (begin < end)
            product<false>(x + r * width, width, turned + 16 * begin, PANEL, D, end - begin,
                           out + r * PANEL + 16 * begin, PANEL, false);
    }
}

// Adds weights times rows of b [PANEL][width] to the lines' sums
void mix(const Lines& lines, const float* weights, const Panel& panel, const float* b, int width, float* sums) {
    for (int r = 0; r < lines.count; r += TOGETHER) {
        const int begin = lines.begin(panel, r), end = lines.end(panel, r + TOGETHER - 1);
        if (begin < end)
            product<false>(weights + r * PANEL + begin, PANEL, b + begin * width, width, end - begin, width / 16,
                           sums + r * width, width, true);
    }
}

// Adds the lines' vectors times their weights to the sums of each key, [PANEL][width] and padded_keys of them
void gather(const Lines& lines, const float* weights, const Panel& panel, const float* x, int width, float* sums) {
    for (int key = 0; key < panel.count; key += TOGETHER) {
        const int place = panel.position + key - lines.first;  // the first token that sees one of these keys
        const int begin = place > 0 ? place * lines.G : 0;
        const int64_t to = (int64_t(place) + TOGETHER - 1 + lines.window) * lines.G;
        const int end = to < lines.count ? int(to) : lines.count;
        if (begin < end)
            product<true>(weights + begin * PANEL + key, PANEL, x + begin * width, width, end - begin, width / 16,
                          sums + key * width, width, true);
    }
}

INLINE uint32_t mask_of(int begin, int end, int at) {  // keys at ... at + 15 that lie in [begin, end)
    const int low = begin > at ? begin - at : 0, high = end - at < 16 ? end - at : 16;
    return low < high ? (1u << high) - (1u << low) : 0;
}

void lift(Lines& lines, int r, int width, float largest) {
    if (!(largest > lines.level[r])) return;
    const F scale = exp(set(lines.level[r] - largest));
    lines.level[r] = largest;
    store(lines.totals + 16 * r, mul(load(lines.totals + 16 * r), scale));
    float* out = lines.out + r * width;
    for (int d = 0; d < width; d += 16) store(out + d, mul(load(out + d), scale));
}

// Turns scores into weights, zeros for keys that a line does not see
void weigh(Lines& lines, const Panel& panel, int width) {
    const F none = set(-INFINITY);
    for (int r = 0; r < padded_keys(lines.count); r++) {
        const int begin = lines.begin(panel, r), end = r < lines.count ? lines.end(panel, r) : 0;
        float* weights = lines.weights + r * PANEL;
        F largest = none;
        for (int at = 0; at < PANEL; at += 16)
            if (const uint32_t mask = mask_of(begin, end, at))
                largest = max(largest, select(mask, load(weights + at), none));
        if (begin < end && any_below(set(lines.level[r] + SLACK), largest)) lift(lines, r, width, max_of(largest));
        const F level = set(lines.level[r]);
        F total = load(lines.totals + 16 * r);
        for (int at = 0; at < PANEL; at += 16) {
            const uint32_t mask = mask_of(begin, end, at);
            const F weight = mask ? select(mask, exp(sub(load(weights + at), level)), zero()) : zero();
            total = add(total, weight);
            store(weights + at, weight);
        }
        store(lines.totals + 16 * r, total);
    }
}

// Turns scores into weights, and products of gradients with values into gradients of scores
void slope(Lines& lines, const Panel& panel) {
    for (int r = 0; r < padded_keys(lines.count); r++) {
        const int begin = lines.begin(panel, r), end = r < lines.count ? lines.end(panel, r) : 0;
        float *weights = lines.weights + r * PANEL, *slopes = lines.slopes + r * PANEL;
        const F level = set(lines.level[r]), delta = set(lines.delta[r]);
        for (int at = 0; at < PANEL; at += 16) {
            F weight = zero(), slope = zero();
            if (const uint32_t mask = mask_of(begin, end, at)) {
                weight = select(mask, exp(sub(load(weights + at), level)), zero());
                slope = select(mask, mul(weight, sub(load(slopes + at), delta)), zero());
            }
            store(weights + at, weight), store(slopes + at, slope);
        }
    }
}

INLINE bool none_sees(const Lines& lines, const Panel& panel) {
    return lines.begin(panel, 0) >= lines.end(panel, lines.count - 1);
}

// Whether the prefix's panels must be filled for a piece
INLINE bool is_first_behind(const RowPiece* pieces, int i) { return pieces[i].before && !(i && pieces[i - 1].before); }

void forward_lines(const PackedAttention& job, const RowPiece& piece, int head, int token, Scratch& s) {
    Lines& lines = s.lines;
    const int panels = int(panels_of(piece.before) + panels_of(piece.last));
    for (int index = 0; index < panels; index++) {
        const Panel panel = s.panel(piece, index);
        if (none_sees(lines, panel)) continue;
        scores(lines, lines.q, panel, panel.turned, job.D, s.width, lines.weights);
        weigh(lines, panel, s.width);
        mix(lines, lines.weights, panel, panel.values, s.width, lines.out);
    }
    for (int r = 0; r < lines.count; r++) {
        const size_t at = place(job, piece, head, token, r);
        const float total = sum_of(load(lines.totals + 16 * r));
        job.sums[at] = lines.level[r] + logf(total);
        from_floats(lines.out + r * s.width, set(1.0f / total), job.D, job.out, at * job.D, job.bf16);
    }
}

// `own`: the place of the row's first key among the sums of gradients
void backward_lines(const PackedAttention& job, const RowPiece& piece, int head, int token, Scratch& s, size_t own,
                    float* grad_k, float* grad_v) {
    Lines& lines = s.lines;
    const int panels = int(panels_of(piece.before) + panels_of(piece.last));
    for (int index = 0; index < panels; index++) {
        const Panel panel = s.panel(piece, index);
        if (none_sees(lines, panel)) continue;
        const bool prefix = panel.position < piece.before;
        const size_t to = (panel.position + (prefix ? 0 : own - piece.before)) * s.width;
        scores(lines, lines.q, panel, panel.turned, job.D, s.width, lines.weights);
        scores(lines, lines.grad, panel, panel.values, job.D, s.width, lines.slopes);
        slope(lines, panel);
        gather(lines, lines.weights, panel, lines.grad, s.width, grad_v + to);
        gather(lines, lines.slopes, panel, lines.q, s.width, grad_k + to);
        mix(lines, lines.slopes, panel, panel.keys, s.width, lines.grad_q);
    }
    const F scale = set(1.0f / sqrtf(float(job.D)));
    for (int r = 0; r < lines.count; r++) {
        const size_t at = place(job, piece, head, token, r) * job.D;
        from_floats(lines.grad_q + r * s.width, scale, job.D, job.grad_q, at, job.bf16);
    }
}

}  // namespace

void training_forward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* memory) {
    Scratch s = laid_out(job, memory);
    for (int i = 0; i < count; i++) {
        fill_panels(job, s, pieces[i], head, is_first_behind(pieces, i));
        for (int token = pieces[i].first; token < pieces[i].last;) {
            const int tokens = begin_lines(job, pieces[i], head, token, s);
            forward_lines(job, pieces[i], head, token, s);
            token += tokens;
        }
    }
}

void training_backward(const PackedAttention& job, const RowPiece* pieces, int count, int head, float* memory,
                       float* grad_k, float* grad_v) {
    Scratch s = laid_out(job, memory);
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
        fill_panels(job, s, piece, head, is_first_behind(pieces, i));
        for (int token = piece.first; token < piece.last;) {
            const int tokens = begin_lines(job, piece, head, token, s);
            backward_lines(job, piece, head, token, s, own, grad_k, grad_v);
            token += tokens;
        }
    }
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
