// The layers of a pass; `head.cpp` has what follows them.
#include <thread>

#include "pass.h"

namespace riyaz {
namespace {

constexpr int QKV[] = {Q, K, V}, OUT[] = {O}, GATE_UP[] = {GATE, UP}, DOWN_[] = {DOWN};

int product_of(const int* parts) { return parts[0] == Q ? 0 : parts[0] == O ? 1 : parts[0] == GATE ? 2 : 3; }

}  // namespace

Inputs InputsMemory::get(int T, int cols, Forms forms) {
    Inputs in;
    in.cols = cols;
    const size_t rows = size_t(padded(T, 32)) + 32,
                 groups = rows * (cols / GROUP);  // wide products read 32 from any one on
    if (forms.fp32) in.fp32 = fp32.get(rows * cols);
    if (forms.bf16) in.bf16 = bf16.get(rows * cols);
    if (forms.codes) {
        in.codes = codes.get(rows * cols);
        in.scale = scale.get(groups), in.sum = sum.get(groups), in.total = total.get(groups);
    }
    return in;
}

Pass::Pass(Model& model, std::vector<Piece> given, int active)
    : m(model), c(model.config), k(kernels()), b(*model.buffers_), pieces(std::move(given)), threads(active) {
    // wide products first, and each adapter's tokens together
    std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& one, const Piece& two) {
        return one.wide != two.wide ? one.wide : one.adapter < two.adapter;
    });
    for (auto& piece : pieces) {
        piece.begin = T, T += piece.n;
        if (!spans.empty() && spans.back().adapter == piece.adapter && spans.back().wide == piece.wide)
            spans.back().n += piece.n;
        else
            spans.push_back({piece.begin, piece.n, piece.adapter, piece.wide});
    }
    piece_of.resize(T);
    for (size_t p = 0; p < pieces.size(); p++) std::fill_n(piece_of.begin() + pieces[p].begin, pieces[p].n, int(p));

    const bool any_wide = !pieces.empty() && pieces[0].wide;
    heads_width = c.heads * c.head, qkv_width = (c.heads + 2 * c.kv_heads) * c.head;
    sliced = c.head % (any_wide ? WIDE_GROUP : GROUP) == 0;
    const int C = padded(c.hidden, GROUP), A = padded(heads_width, GROUP), F = padded(c.inner, GROUP);
    x = b.x.get(size_t(T) * c.hidden), part = b.part.get(size_t(T) * c.hidden);
    qkv = b.qkv.get(size_t(T) * qkv_width), attended = b.attended.get(size_t(T) * heads_width);
    const bool reads_bf16 = !c.fp32 && m.reads_bf16(), tiles = k.wide_kind == Wide::tiles;
    forms = {!c.fp32, !c.fp32 && (tiles || reads_bf16), c.fp32 || (any_wide && reads_bf16 && k.wide_bf16 && !tiles)};
    hidden = b.hidden.get(T, C, forms), heads = b.heads.get(T, A, forms), inner = b.inner.get(T, F, forms);
    gate = b.gate.get(size_t(T) * c.inner), up = b.up.get(size_t(T) * c.inner);
    b.scratch.get(size_t(threads) * wide_scratch(std::max({C, A, F})));
    for (const Span& span : spans)
        if (span.adapter >= 0) low_width = std::max(low_width, m.adapters_.at(span.adapter)->low_width);
    if (low_width) {
        low = b.low.get(size_t(T) * low_width * 3);
        for (int i = 0; i < 3; i++) low_bf16[i] = b.low_bf16[i].get(size_t(padded(T, 32) + 32) * low_width);
    }
    cursors.reset(new std::atomic<int>[c.layers]);
    for (int l = 0; l < c.layers; l++) cursors[l] = 0;
    lora_downs.reset(new std::atomic<int>[4 * c.layers]);
    for (int l = 0; l < 4 * c.layers; l++) lora_downs[l] = 0;
    plan_attention();
    collect();
}

uint8_t* Pass::scratch(int thread) const {
    return b.scratch.get(0) + size_t(thread) * wide_scratch(std::max({hidden.cols, heads.cols, inner.cols}));
}

void Pass::share(int n, int thread, int& begin, int& end) const {
    begin = int(int64_t(n) * thread / threads), end = int(int64_t(n) * (thread + 1) / threads);
}

void Pass::work(int thread) {
    embed(thread);
    for (int l = 0; l < c.layers; l++) {
        norm(thread, l, ATTENTION_NORM, false);
        barrier();
        lora_down(thread, l, QKV, 3, hidden);
        product(thread, l, QKV, 3, hidden, qkv, qkv_width, false);
        barrier();
        positions(thread, l);
        barrier();
        attend(thread, l);
        barrier();
        lora_down(thread, l, OUT, 1, heads);
        product(thread, l, OUT, 1, heads, x, c.hidden, true);
        barrier();
        norm(thread, l, MLP_NORM, true);
        barrier();
        lora_down(thread, l, GATE_UP, 2, hidden);
        gated(thread, l);
        barrier();
        prepare_inner(thread, l);
        barrier();
        lora_down(thread, l, DOWN_, 1, inner);
        product(thread, l, DOWN_, 1, inner, x, c.hidden, true);
        barrier();
    }
    head(thread);
}

void Pass::embed(int thread) {
    int begin, end;
    share(T, thread, begin, end);
    std::vector<float> row(padded(c.hidden, SUPER));
    for (int t = begin; t < end; t++) {
        const Piece& piece = pieces[piece_of[t]];
        const int i = t - piece.begin;
        float* out = x + size_t(t) * c.hidden;
        if (i < piece.vectors) {
            const auto& prompt = m.adapters_.at(piece.adapter)->soft_prompt;
            memcpy(out, prompt.data() + size_t(piece.position + i) * c.hidden, sizeof(float) * c.hidden);
        } else {
            k.row(m.at(piece.adapter, c.layers, EMBEDDING).matrix.weights,
                  piece.run->tokens[piece.first + i - piece.vectors], row.data());
            for (int j = 0; j < c.hidden; j++) out[j] = row[j] * c.embedding_scale;
        }
        const Matrix& places = m.at(piece.adapter, c.layers, POSITIONS).matrix;
        if (places) {
            k.row(places.weights, piece.position + i, row.data());
            k.add(out, row.data(), c.hidden);
        }
    }
}

// Adds to x what the product before left to do: a bias, or a norm of the sum in `part`.
void Pass::settle(int t, int layer, bool attention, float* scratch) const {
    if (layer < 0) return;
    const int adapter = pieces[piece_of[t]].adapter;
    const auto& bias = m.at(adapter, layer, attention ? O_BIAS : DOWN_BIAS).vector;
    const auto& post = m.at(adapter, layer, attention ? POST_ATTENTION_NORM : POST_MLP_NORM).vector;
    float* own = (post.empty() ? x : part) + size_t(t) * c.hidden;
    if (!bias.empty()) k.add(own, bias.data(), c.hidden);
    if (post.empty()) return;
    k.rms_norm(own, post.data(), c.eps, c.hidden, scratch);
    k.add(x + size_t(t) * c.hidden, scratch, c.hidden);
}

void Pass::normalise(int t, int layer, int slot, float* out) const {
    const int adapter = pieces[piece_of[t]].adapter;
    const float* from = x + size_t(t) * c.hidden;
    const float* weight = m.at(adapter, layer, slot).vector.data();
    if (c.layer_norm)
        k.layer_norm(from, weight, m.at(adapter, layer, slot + 1).vector.data(), c.eps, c.hidden, out);
    else
        k.rms_norm(from, weight, c.eps, c.hidden, out);
}

void Pass::norm(int thread, int layer, int slot, bool after_attention) {
    int begin, end;
    share(T, thread, begin, end);
    std::vector<float> scratch(c.hidden);
    for (int t = begin; t < end; t++) {
        settle(t, after_attention ? layer : layer - 1, after_attention, scratch.data());
        normalise(t, layer, slot, scratch.data());
        prepare(scratch.data(), c.hidden, hidden.from(t), pieces[piece_of[t]].wide);
    }
}

// The products with A of LoRA pairs, from inputs that are not quantised. `await_lora_down` says when all have theirs.
void Pass::lora_down(int thread, int layer, const int* parts, int count, const Inputs& in) {
    if (!low_width) return;
    int item = 0;
    for (const Span& span : spans) {
        for (int i = 0; i < count; i++) {
            const Lora* pair = m.lora(span.adapter, layer, parts[i]);
            if (!pair || item++ % threads != thread) continue;
            const Weights& a = pair->a.weights;
            const int cols = padded(pair->b.weights.cols, GROUP);
            float* y = low + (size_t(i) * T + span.begin) * low_width;
            const Inputs own = in.from(span.begin);
            multiply(thread, span.wide, a, 0, a.blocks(), own, span.n, y, cols, false, nullptr);
            Inputs out;  // the same numbers, with zeros beyond the rank: 0 times a number left from before may be NaN
            out.cols = cols, out.fp32 = y;
            if (!c.fp32) out.bf16 = low_bf16[i] + size_t(span.begin) * low_width;
            for (int t = 0; t < span.n; t++) k.inputs(y + size_t(t) * cols, a.rows, out.from(t));
            lora_downs[layer * 4 + product_of(parts)].fetch_add(1, std::memory_order_release);
        }
    }
}

// All threads began their share of the products with A before they came here, so that this waits for microseconds.
void Pass::await_lora_down(int layer, const int* parts, int count) const {
    int items = 0;
    for (const Span& span : spans)
        for (int i = 0; i < count; i++) items += m.lora(span.adapter, layer, parts[i]) != nullptr;
    const auto& done = lora_downs[layer * 4 + product_of(parts)];
    while (done.load(std::memory_order_acquire) < items) std::this_thread::yield();
}

// Adds the products with B, for the rows of blocks [begin, end) of the parts together.
void Pass::lora_up(int layer, const int* parts, int count, int begin, int end, float* y, size_t stride, int thread) {
    if (!low_width) return;
    await_lora_down(layer, parts, count);
    int first = 0, row = 0;
    for (int i = 0; i < count; i++) {
        const Weights& base = m.at(-1, layer, parts[i]).matrix.weights;
        const int from = std::max(begin - first, 0), to = std::min(end - first, base.blocks());
        for (const Span& span : spans)
            if (const Lora* pair = from < to ? m.lora(span.adapter, layer, parts[i]) : nullptr)
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
    from.bf16 = low_bf16[place] + size_t(span.begin) * low_width;
    multiply(thread, span.wide, b_, begin, end, from, span.n, y, stride, true, nullptr);
}

void Pass::multiply(int thread, bool wide, const Weights& w, int begin, int end, const Inputs& in, int n, float* y,
                    size_t stride, bool add, const uint8_t* next) const {
    if (wide && is_wide(k, w.format))
        k.wide(w, begin, end, in, n, y, stride, add, scratch(thread));
    else
        k.narrow(w, begin, end, in, n, y, stride, add, next);
}

void Pass::one_part(int thread, const Span& span, int layer, int slot, int begin, int end, const Inputs& in, float* y,
                    size_t stride, bool add, const uint8_t* next) {
    const Weights& w = m.at(span.adapter, layer, slot).matrix.weights;
    multiply(thread, span.wide, w, begin, end, in.from(span.begin), span.n, y + size_t(span.begin) * stride, stride,
             add, next);
}

// y = W x of several matrices with the same inputs, their rows one after the other; in a model with norms after each
// part the sums go to `part` instead of being added to x.
void Pass::product(int thread, int layer, const int* parts, int count, const Inputs& in, float* y, size_t stride,
                   bool add) {
    if (add && !m.at(-1, layer, parts[0] == O ? POST_ATTENTION_NORM : POST_MLP_NORM).vector.empty())
        y = part, add = false;
    int total = 0, begin, end;
    for (int i = 0; i < count; i++) total += m.at(-1, layer, parts[i]).matrix.weights.blocks();
    share(total, thread, begin, end);
    const uint8_t* next = parts[0] == Q   ? first_weights(thread, layer, OUT, 1)
                          : parts[0] == O ? first_weights(thread, layer, GATE_UP, 2)
                                          : first_weights(thread, layer + 1, QKV, 3);
    int first = 0, row = 0;
    for (int i = 0; i < count; i++) {
        const Weights& base = m.at(-1, layer, parts[i]).matrix.weights;
        const int from = std::max(begin - first, 0), to = std::min(end - first, base.blocks());
        for (size_t s = 0; s < spans.size() && from < to;) {  // neighbours with the same weights together
            Span span = spans[s++];
            const uint8_t* own = m.at(span.adapter, layer, parts[i]).matrix.weights.data;
            while (s < spans.size() && spans[s].wide == span.wide &&
                   m.at(spans[s].adapter, layer, parts[i]).matrix.weights.data == own)
                span.n += spans[s++].n;
            one_part(thread, span, layer, parts[i], from, to, in, y + row, stride, add, next);
        }
        first += base.blocks(), row += base.rows;
    }
    lora_up(layer, parts, count, begin, end, y, stride, thread);
}

const uint8_t* Pass::first_weights(int thread, int layer, const int* parts, int count) const {
    if (layer >= c.layers) {
        const Matrix& head = m.at(-1, c.layers, HEAD).matrix;
        const Weights& w = head ? head.weights : m.at(-1, c.layers, EMBEDDING).matrix.weights;
        int begin, end;
        share(w.blocks(), thread, begin, end);
        return w.block(begin);
    }
    int total = 0, begin, end;
    const bool together = parts[0] == GATE;
    for (int i = 0; i < count; i++) total += m.at(-1, layer, parts[i]).matrix.weights.blocks();
    share(together ? total / 2 : total, thread, begin, end);
    for (int i = 0; i < count; i++) {
        const Weights& w = m.at(-1, layer, parts[i]).matrix.weights;
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
    if (span.wide && is_bf16(GATE) != is_bf16(UP)) return false;  // as where an adapter replaces one of them
    return m.at(-1, layer, GATE).matrix && m.at(-1, layer, GATE_BIAS).vector.empty() &&
           !m.lora(span.adapter, layer, GATE) && !m.lora(span.adapter, layer, UP);
}

void Pass::gated(int thread, int layer) {
    const int blocks = m.at(-1, layer, UP).matrix.weights.blocks();
    const bool has_gate = bool(m.at(-1, layer, GATE).matrix);
    int begin, end;
    share(blocks, thread, begin, end);
    const uint8_t* next = first_weights(thread, layer, DOWN_, 1);
    for (const Span& span : spans) {
        const size_t at = size_t(span.begin);
        if (!is_fused(span, layer)) {
            if (has_gate) one_part(thread, span, layer, GATE, begin, end, hidden, gate, c.inner, false, nullptr);
            one_part(thread, span, layer, UP, begin, end, hidden, up, c.inner, false, next);
            continue;
        }
        const Weights& left = m.at(span.adapter, layer, GATE).matrix.weights;
        const Weights& right = m.at(span.adapter, layer, UP).matrix.weights;
        if (span.wide && is_wide(k, left.format) && is_wide(k, right.format)) {
            Inputs to = inner.from(span.begin);
            if (k.wide_kind == Wide::lanes) to.cols = c.inner, to.fp32 = gate + at * c.inner;
            k.wide_gated(left, right, begin, end, c.activation, hidden.from(span.begin), span.n, to, scratch(thread));
        } else {
            k.narrow_gated(left, right, begin, end, c.activation, hidden.from(span.begin), span.n, gate + at * c.inner,
                           c.inner, next);
        }
    }
    if (low_width) await_lora_down(layer, GATE_UP, 2);
    for (const Span& span : spans) {
        if (is_fused(span, layer)) continue;
        for (int i = 0; i < 2; i++)
            if (const Lora* pair = m.lora(span.adapter, layer, GATE_UP[i]))
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
        if (!up_bias.empty()) k.add(u, up_bias.data() + row, n);
        if (!gate_bias.empty()) k.add(g, gate_bias.data() + row, n);
        if (has_gate)
            k.activate(g, u, c.activation, n);
        else
            k.activate(u, nullptr, c.activation, n);
    }
}

void Pass::prepare_inner(int thread, int layer) {
    int begin, end;
    share(T, thread, begin, end);
    const float* from = m.at(-1, layer, GATE).matrix ? gate : up;
    for (const Span& span : spans) {
        if (is_fused(span, layer) && span.wide && k.wide_kind == Wide::tiles) continue;
        for (int t = std::max(begin, span.begin); t < std::min(end, span.begin + span.n); t++)
            prepare(from + size_t(t) * c.inner, c.inner, inner.from(t), span.wide);
    }
}

}  // namespace riyaz
