// The linears of a pass: products with packed weights, and what adapters add to them.
#include <thread>

#include "engine/pass.h"

namespace riyaz {
namespace {

constexpr size_t FETCHED = 96 * 1024;        // most bytes of weights that a thread fetches while it waits
constexpr int GRAINS = 12, LORA_GRAINS = 4;  // parts of a thread's share of a product
constexpr const LinearGroup* LAYER_GROUPS[] = {&QKV, &OUT, &GATE_UP, &BACK};

}  // namespace

// The products with A of LoRA pairs, from inputs that are not quantised. `await_lora_down` says when all have theirs.
void Pass::lora_down(int thread, int layer, const LinearGroup& which, const Inputs& in) {
    if (!low_width) return;
    int item = 0;
    for (const Span& span : spans) {
        for (int i = 0; i < which.count; i++) {
            const Lora* pair = m.lora(span.adapter, layer, which.parts[i]);
            if (!pair || item++ % threads != thread) continue;
            const Weights& a = pair->a.weights;
            const int cols = padded(pair->b.weights.cols, GROUP);
            float* y = low + (size_t(i) * T + span.begin) * low_width;
            const Inputs own = in.from(span.begin);
            multiply(thread, span.many, a, 0, a.blocks(), own, span.n, y, cols, false, nullptr);
            Inputs out;  // the same numbers, with zeros beyond the rank: 0 times a number left from before may be NaN
            out.cols = cols, out.fp32 = y;
            const bool tiles = span.many && k.many_tokens_by == ManyTokens::tiles;
            out.strips = low_strips[i] + span.begin * GROUP, out.strip_rows = strip_rows(T);
            for (int t = 0; t < span.n; t++)
                (tiles ? k.many_tokens_inputs : k.inputs)(y + size_t(t) * cols, a.rows, out.from(t));
            lora_downs[layer * LINEAR_GROUPS + which.index].fetch_add(1, std::memory_order_release);
        }
    }
}

// All threads began their share of the products with A before they came here, so that this waits for microseconds.
void Pass::await_lora_down(int layer, const LinearGroup& which) const {
    int items = 0;
    for (const Span& span : spans)
        for (int i = 0; i < which.count; i++) items += m.lora(span.adapter, layer, which.parts[i]) != nullptr;
    const auto& done = lora_downs[layer * LINEAR_GROUPS + which.index];
    while (done.load(std::memory_order_acquire) < items) std::this_thread::yield();
}

// Adds the products with B, for the rows of blocks [begin, end) of the parts together.
void Pass::lora_up(int layer, const LinearGroup& which, int begin, int end, float* y, size_t stride, int thread) {
    if (!low_width) return;
    await_lora_down(layer, which);
    int first = 0, row = 0;
    for (int i = 0; i < which.count; i++) {
        const Weights& base = m.at(-1, layer, which.parts[i]).matrix.weights;
        const int from = std::max(begin - first, 0), to = std::min(end - first, base.blocks());
        for (const Span& span : spans)
            if (const Lora* pair = from < to ? m.lora(span.adapter, layer, which.parts[i]) : nullptr)
                lora_up_part(thread, span, *pair, i, from, to, y + size_t(span.begin) * stride + row, stride);
        first += base.blocks(), row += base.rows;
    }
}

void Pass::lora_up_part(int thread, const Span& span, const Lora& pair, int place, int begin, int end, float* y,
                        size_t stride) {
    const Weights& b_ = pair.b.weights;
    Inputs from;
    from.cols = padded(b_.cols, GROUP);
    from.fp32 = low + (size_t(place) * T + span.begin) * low_width;
    from.strips = low_strips[place] + span.begin * GROUP, from.strip_rows = strip_rows(T);
    multiply(thread, span.many, b_, begin, end, from, span.n, y, stride, true, nullptr);
}

void Pass::multiply(int thread, bool many, const Weights& w, int begin, int end, const Inputs& in, int n, float* y,
                    size_t stride, bool add, const uint8_t* next) const {
    if (is_ternary(w.format))
        k.ternary(w, begin, end, in, n, y, stride, add, next, scratch(thread));
    else if (many && has_many_tokens(k, w.format))
        k.many_tokens(w, begin, end, in, n, y, stride, add, scratch(thread));
    else
        k.few_tokens(w, begin, end, in, n, y, stride, add, next, scratch(thread));
}

void Pass::one_part(int thread, const Span& span, int layer, int slot, int begin, int end, const Inputs& in, float* y,
                    size_t stride, const uint8_t* next) {
    const Weights& w = m.at(span.adapter, layer, slot).matrix.weights;
    multiply(thread, span.many, w, begin, end, in.from(span.begin), span.n, y + size_t(span.begin) * stride, stride,
             false, next);
}

uint8_t* Pass::scratch(int thread) const {
    return b.scratch.get(0) +
           size_t(thread) * product_scratch(std::max({hidden.cols, heads.cols, inner.cols, low_width}));
}

// Takes some of the `total` blocks of a product: of the thread's own share, then of what other threads have left of
// theirs, since the cores of a shared machine are not equally fast at any time. `next` is where the thread reads
// weights afterwards, if they do not follow on these.
bool Pass::take(int thread, int layer, const LinearGroup& which, int total, Blocks& blocks) {
    const int unit = pieces[0].many ? PANELS : 2, count = threads * (low_width ? LORA_GRAINS : GRAINS);
    const int grain = padded((total + count - 1) / count, unit);
    for (int i = 0; i < threads; i++) {
        const int other = (thread + i) % threads;
        int first, last;
        share(total, other, first, last);
        auto& taken = grains[(size_t(layer) * LINEAR_GROUPS + which.index) * threads + other].taken;
        if (first + taken.load(std::memory_order_relaxed) * grain >= last) continue;
        blocks.begin = first + taken.fetch_add(1, std::memory_order_relaxed) * grain;
        if (blocks.begin >= last) continue;
        blocks.end = std::min(blocks.begin + grain, last);
        blocks.next = nullptr;
        if (i == 0 && blocks.end == last) {
            blocks.next = following(thread, layer, which);
            if (blocks.next) places[thread].ahead = {blocks.next, blocks.next + FETCHED};
        }
        return true;
    }
    return false;
}

// y = W x of several matrices with the same inputs, their rows one after the other
void Pass::product(int thread, int layer, const LinearGroup& which, const Inputs& in, float* y, size_t stride) {
    int total = 0;
    for (int i = 0; i < which.count; i++) total += m.at(-1, layer, which.parts[i]).matrix.weights.blocks();
    for (Blocks blocks; take(thread, layer, which, total, blocks);) {
        int first = 0, row = 0;
        for (int i = 0; i < which.count; i++) {
            const Weights& base = m.at(-1, layer, which.parts[i]).matrix.weights;
            const int from = std::max(blocks.begin - first, 0), to = std::min(blocks.end - first, base.blocks());
            const bool goes_on = first + to < blocks.end;
            const uint8_t* next = goes_on ? m.at(-1, layer, which.parts[i + 1]).matrix.weights.data : blocks.next;
            for (size_t s = 0; s < spans.size() && from < to;) {  // neighbours with the same weights together
                Span span = spans[s++];
                const uint8_t* own = m.at(span.adapter, layer, which.parts[i]).matrix.weights.data;
                while (s < spans.size() && spans[s].many == span.many &&
                       m.at(spans[s].adapter, layer, which.parts[i]).matrix.weights.data == own)
                    span.n += spans[s++].n;
                one_part(thread, span, layer, which.parts[i], from, to, in, y + row, stride, next);
            }
            first += base.blocks(), row += base.rows;
        }
        lora_up(layer, which, blocks.begin, blocks.end, y, stride, thread);
    }
}

// Where a thread reads weights after its share of a product
const uint8_t* Pass::following(int thread, int layer, const LinearGroup& which) const {
    const bool last = which.index == BACK.index;
    return first_weights(thread, last ? layer + 1 : layer, last ? QKV : *LAYER_GROUPS[which.index + 1]);
}

const uint8_t* Pass::first_weights(int thread, int layer, const LinearGroup& which) const {
    int total = 0, begin, end;
    if (layer >= c.layers) {
        const Matrix& head = m.at(-1, c.layers, HEAD).matrix;
        const Weights& w = head ? head.weights : m.at(-1, c.layers, EMBEDDING).matrix.weights;
        share(w.blocks(), thread, begin, end);
        return w.block(begin);
    }
    for (int i = 0; i < which.count; i++) total += m.at(-1, layer, which.parts[i]).matrix.weights.blocks();
    share(which.index == GATE_UP.index ? total / 2 : total, thread, begin, end);
    for (int i = 0; i < which.count; i++) {
        const Weights& w = m.at(-1, layer, which.parts[i]).matrix.weights;
        if (begin < w.blocks()) return w.block(begin);
        begin -= w.blocks();
    }
    return nullptr;
}

// Whether the activation follows directly on the products of gate and up
bool Pass::is_fused(const Span& span, int layer) const {
    const auto is_bf16 = [&](int slot) {
        return m.at(span.adapter, layer, slot).matrix.weights.format == Format::bf16;
    };
    if (span.many && is_bf16(GATE) != is_bf16(UP)) return false;  // as where an adapter replaces one of them
    for (const int slot : {GATE, UP})
        if (is_ternary(m.at(span.adapter, layer, slot).matrix.weights.format)) return false;
    if (!m.at(span.adapter, layer, MLP_SUB_NORM).vector.empty()) return false;
    return m.at(-1, layer, GATE).matrix && m.at(-1, layer, GATE_BIAS).vector.empty() &&
           !m.lora(span.adapter, layer, GATE) && !m.lora(span.adapter, layer, UP);
}

void Pass::gated(int thread, int layer, const Inputs& in) {
    const int total = m.at(-1, layer, UP).matrix.weights.blocks();
    for (Blocks blocks; take(thread, layer, GATE_UP, total, blocks);) gated_rows(thread, layer, in, blocks);
}

void Pass::gated_rows(int thread, int layer, const Inputs& in, const Blocks& blocks) {
    const auto [begin, end, next] = blocks;
    const bool has_gate = bool(m.at(-1, layer, GATE).matrix);
    for (const Span& span : spans) {
        const size_t at = size_t(span.begin);
        if (!is_fused(span, layer)) {
            if (has_gate) one_part(thread, span, layer, GATE, begin, end, in, gate, c.inner, nullptr);
            one_part(thread, span, layer, UP, begin, end, in, up, c.inner, next);
            continue;
        }
        const Weights& left = m.at(span.adapter, layer, GATE).matrix.weights;
        const Weights& right = m.at(span.adapter, layer, UP).matrix.weights;
        if (span.many && has_many_tokens(k, left.format) && has_many_tokens(k, right.format)) {
            Inputs to = inner.from(span.begin);
            if (k.many_tokens_by == ManyTokens::codes) to.cols = c.inner, to.fp32 = gate + at * c.inner;
            k.many_tokens_gated(left, right, begin, end, c.activation, in.from(span.begin), span.n, to,
                                scratch(thread));
        } else {
            k.few_tokens_gated(left, right, begin, end, c.activation, in.from(span.begin), span.n, gate + at * c.inner,
                               c.inner, next, scratch(thread));
        }
    }
    if (low_width) await_lora_down(layer, GATE_UP);
    for (const Span& span : spans) {
        if (is_fused(span, layer)) continue;
        for (int i = 0; i < 2; i++)
            if (const Lora* pair = m.lora(span.adapter, layer, GATE_UP.parts[i]))
                lora_up_part(thread, span, *pair, i, begin, end, (i ? up : gate) + size_t(span.begin) * c.inner,
                             c.inner);
        const int row = begin * ROWS;
        activate(span, layer, row, std::min(end * ROWS, c.inner) - row);
    }
}

// The activation of n inner features from `row` on, of all tokens of a span
void Pass::activate(const Span& span, int layer, int row, int n) {
    if (n <= 0) return;
    const auto& gate_bias = m.at(span.adapter, layer, GATE_BIAS).vector;
    const auto& up_bias = m.at(span.adapter, layer, UP_BIAS).vector;
    const bool has_gate = bool(m.at(-1, layer, GATE).matrix);
    for (int t = span.begin; t < span.begin + span.n; t++) {
        float *g = gate + size_t(t) * c.inner + row, *u = up + size_t(t) * c.inner + row;
        if (!up_bias.empty()) k.add_to(u, up_bias.data() + row, n);
        if (!gate_bias.empty()) k.add_to(g, gate_bias.data() + row, n);
        if (has_gate)
            k.activate(g, u, c.activation, n);
        else
            k.activate(u, nullptr, c.activation, n);
    }
}

}  // namespace riyaz
