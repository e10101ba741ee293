// The layers of a pass: its phases, and what is done token by token. `linears.cpp` has the linears, `attend.cpp` has
// attention, `head.cpp` what follows the layers.
#include "engine/pass.h"

namespace riyaz {
namespace {

constexpr int ON_THEIR_OWN = 2;  // tokens of a pass of which each thread makes the inputs of products for itself

}  // namespace

Inputs InputsMemory::get(int T, int cols, Forms forms) {
    Inputs in;
    in.cols = cols, in.many_tokens_group = forms.many_tokens_group;
    const size_t rows = size_t(padded(T, 32)) + 32, groups = rows * (cols / GROUP);
    if (forms.fp32) in.fp32 = fp32.get(rows * cols);
    if (forms.bf16) in.bf16 = bf16.get(rows * cols);
    if (forms.strips) in.strip_rows = strip_rows(T), in.strips = strips.get(size_t(in.strip_rows) * cols);
    if (forms.codes) {
        in.codes = codes.get(rows * cols), in.low = low.get(rows * cols);
        in.scale = scale.get(groups), in.sum = sum.get(groups), in.total = total.get(groups);
    }
    if (forms.tokens) {
        in.token_codes = token_codes.get(rows * cols);
        in.token_scale = token_scale.get(rows), in.token_total = token_total.get(rows * cols / TERNARY);
    }
    return in;
}

Pass::Pass(Model& model, std::vector<Piece> given, int active)
    : m(model), c(model.config), k(kernels()), b(*model.buffers_), pieces(std::move(given)), threads(active) {
    // runs of many tokens first, and each adapter's tokens together
    std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& one, const Piece& two) {
        return one.many != two.many ? one.many : one.adapter < two.adapter;
    });
    for (auto& piece : pieces) {
        piece.begin = T, T += piece.n;
        if (!spans.empty() && spans.back().adapter == piece.adapter && spans.back().many == piece.many)
            spans.back().n += piece.n;
        else
            spans.push_back({piece.begin, piece.n, piece.adapter, piece.many});
    }
    piece_of.resize(T);
    for (size_t p = 0; p < pieces.size(); p++) std::fill_n(piece_of.begin() + pieces[p].begin, pieces[p].n, int(p));

    for (const Span& span : spans)
        if (span.adapter >= 0) low_width = std::max(low_width, m.adapters_.at(span.adapter)->low_width);
    const bool any_many = !pieces.empty() && pieces[0].many;
    heads_width = c.heads * c.head, qkv_width = (c.heads + 2 * c.kv_heads) * c.head;
    const int many_tokens_group = m.has_int8() ? GROUP : MANY_TOKENS_GROUP;
    const bool tokens = m.has_linear(true), others = m.has_linear(false);
    sliced = c.head % (any_many ? many_tokens_group : GROUP) == 0 && !tokens &&
             m.at(-1, 0, ATTENTION_SUB_NORM).vector.empty();
    const int C = padded(c.hidden, GROUP), A = padded(heads_width, GROUP), F = padded(c.inner, GROUP);
    copies = T <= ON_THEIR_OWN && !any_many ? threads : 1;
    x = b.x.get(size_t(copies) * T * c.hidden), part = b.part.get(size_t(T) * c.hidden);
    gate = qkv = b.shared.get(size_t(T) * std::max(qkv_width + (sliced ? 0 : heads_width), c.inner));
    attended = qkv + size_t(T) * qkv_width;
    const bool reads_bf16 = !c.fp32 && m.reads_bf16(), tiles = k.many_tokens_by == ManyTokens::tiles;
    forms = {
        !c.fp32, reads_bf16,        c.fp32 || low_width || (any_many && reads_bf16 && k.many_tokens_bf16 && !tiles),
        tokens,  any_many && tiles, many_tokens_group};
    head_forms = forms, head_forms.tokens = false;
    if (!others) forms.codes = forms.bf16 = false, forms.strips &= low_width > 0, forms.fp32 = low_width;
    heads = b.heads.get(sliced ? T : copies * T, A, forms);
    hidden = b.hidden.get(copies * T, C, forms), inner = b.inner.get(copies * T, F, forms);
    up = b.up.get(size_t(T) * c.inner);
    b.scratch.get(size_t(threads) * product_scratch(std::max({C, A, F, low_width})));
    if (low_width) {
        low = b.low.get(size_t(T) * low_width * 3);
        for (int i = 0; i < 3; i++) low_strips[i] = b.low_strips[i].get(size_t(strip_rows(T)) * low_width);
    }
    cursors.reset(new std::atomic<int>[c.layers]);
    for (int l = 0; l < c.layers; l++) cursors[l] = 0;
    places.reset(new Place[threads]);
    grains.reset(new Grains[size_t(c.layers) * LINEAR_GROUPS * threads]);
    if (m.traces) {
        m.trace.T = T;
        m.trace.residual.resize(size_t(2 * c.layers + 1) * T * c.hidden);
        m.trace.turned.resize(size_t(c.layers) * T * (c.heads + c.kv_heads) * c.head);
    }
    lora_downs.reset(new std::atomic<int>[LINEAR_GROUPS * c.layers]);
    for (int l = 0; l < LINEAR_GROUPS * c.layers; l++) lora_downs[l] = 0;
    plan_attention();
    collect();
}

void Pass::share(int n, int thread, int& begin, int& end) const {
    begin = int(int64_t(n) * thread / threads), end = int(int64_t(n) * (thread + 1) / threads);
}

void Pass::share_tokens(int n, int thread, int& begin, int& end) const {
    if (copies > 1)
        begin = 0, end = n;
    else
        share(n, thread, begin, end);
}

void Pass::work(int thread) {
    const Inputs normed = hidden.from(own(thread)), activated = inner.from(own(thread));
    const Inputs attended_ = sliced ? heads : heads.from(own(thread));
    embed(thread);
    for (int l = 0; l < c.layers; l++) {
        norm(thread, l, ATTENTION_NORM, false);
        tokens_barrier(thread);
        keep_codes(thread, l, QKV, normed);
        lora_down(thread, l, QKV, normed);
        product(thread, l, QKV, normed, qkv, qkv_width);
        barrier(thread);
        if (!heads_alone) {
            positions(thread, l);
            barrier(thread);
        }
        attend(thread, l);
        if (sliced || m.traces) barrier(thread);
        trace_turned(thread, l);
        if (!sliced) whole_heads(thread, l), tokens_barrier(thread);
        keep_codes(thread, l, OUT, attended_);
        lora_down(thread, l, OUT, attended_);
        product(thread, l, OUT, attended_, part, c.hidden);
        barrier(thread);
        norm(thread, l, MLP_NORM, true);
        tokens_barrier(thread);
        keep_codes(thread, l, GATE_UP, normed);
        lora_down(thread, l, GATE_UP, normed);
        gated(thread, l, normed);
        barrier(thread);
        prepare_inner(thread, l);
        tokens_barrier(thread);
        keep_codes(thread, l, BACK, activated);
        lora_down(thread, l, BACK, activated);
        product(thread, l, BACK, activated, part, c.hidden);
        barrier(thread);
    }
    head(thread);
}

// The first thread's: nothing writes to them before it comes to the barrier behind their product.
void Pass::keep_codes(int thread, int layer, const LinearGroup& which, const Inputs& in) const {
    if (thread || !m.keeps_codes || !in.token_codes) return;
    m.kept_codes.resize(size_t(c.layers) * LINEAR_GROUPS);
    m.kept_codes[layer * LINEAR_GROUPS + which.index].assign(in.token_codes, in.token_codes + size_t(T) * in.cols);
}

// `place`: twice the layers before it, and one more behind attention
void Pass::trace_residual(int thread, int place, int t, const float* from) const {
    if (m.traces && (copies == 1 || thread == 0)) memcpy(traced(place, t), from, sizeof(float) * c.hidden);
}

// Behind attention all queries and keys are turned; the values behind them are left out.
void Pass::trace_turned(int thread, int layer) const {
    if (!m.traces) return;
    const size_t width = size_t(c.heads + c.kv_heads) * c.head;
    int begin, end;
    share(T, thread, begin, end);
    for (int t = begin; t < end; t++)
        memcpy(m.trace.turned.data() + (size_t(layer) * T + t) * width, qkv + size_t(t) * qkv_width,
               sizeof(float) * width);
}

void Pass::embed(int thread) {
    int begin, end;
    share_tokens(T, thread, begin, end);
    std::vector<float> row(padded(c.hidden, SUPER));
    for (int t = begin; t < end; t++) {
        const Piece& piece = pieces[piece_of[t]];
        const int i = t - piece.begin;
        float* out = residual(thread, t);
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
            k.add_to(out, row.data(), c.hidden);
        }
    }
}

// Adds the product before, which is in `part`, to a token's numbers to[C], with its bias or its norm.
void Pass::add_residual(int t, int layer, bool attention, float* to, float* scratch) const {
    if (layer < 0) return;
    const int adapter = pieces[piece_of[t]].adapter;
    const auto& bias = m.at(adapter, layer, attention ? O_BIAS : DOWN_BIAS).vector;
    const auto& post = m.at(adapter, layer, attention ? POST_ATTENTION_NORM : POST_MLP_NORM).vector;
    const float* sums = part + size_t(t) * c.hidden;
    if (!bias.empty()) k.add_to(to, bias.data(), c.hidden);
    if (!post.empty()) k.rms_norm(sums, post.data(), c.eps, c.hidden, scratch), sums = scratch;
    k.add_to(to, sums, c.hidden);
}

void Pass::normalise(int t, int layer, int slot, const float* from, float* out) const {
    const int adapter = pieces[piece_of[t]].adapter;
    const float* weight = m.at(adapter, layer, slot).vector.data();
    if (c.layer_norm)
        k.layer_norm(from, weight, m.at(adapter, layer, slot + 1).vector.data(), c.eps, c.hidden, out);
    else
        k.rms_norm(from, weight, c.eps, c.hidden, out);
}

void Pass::norm(int thread, int layer, int slot, bool after_attention) {
    int begin, end;
    share_tokens(T, thread, begin, end);
    std::vector<float> scratch(c.hidden);
    for (int t = begin; t < end; t++) {
        float* own_x = residual(thread, t);
        add_residual(t, after_attention ? layer : layer - 1, after_attention, own_x, scratch.data());
        trace_residual(thread, 2 * layer + after_attention, t, own_x);
        normalise(t, layer, slot, own_x, scratch.data());
        prepare(scratch.data(), c.hidden, hidden.from(own(thread) + t), pieces[piece_of[t]].many);
    }
}

// from[C], or `out` with what the norm in `slot` makes of it, if the model has that
const float* Pass::sub_normed(int t, int layer, int slot, const float* from, int C, float* out) const {
    const auto& weight = m.at(pieces[piece_of[t]].adapter, layer, slot).vector;
    if (weight.empty()) return from;
    k.rms_norm(from, weight.data(), c.eps, C, out);
    return out;
}

// The results of attention as inputs, where attention does not do that itself
void Pass::whole_heads(int thread, int layer) {
    barrier(thread);
    int begin, end;
    share_tokens(T, thread, begin, end);
    std::vector<float> scratch(heads_width);
    for (int t = begin; t < end; t++) {
        const float* from = attended + size_t(t) * heads_width;
        from = sub_normed(t, layer, ATTENTION_SUB_NORM, from, heads_width, scratch.data());
        prepare(from, heads_width, heads.from(own(thread) + t), pieces[piece_of[t]].many);
    }
}

void Pass::prepare_inner(int thread, int layer) {
    int begin, end;
    share_tokens(T, thread, begin, end);
    std::vector<float> scratch(c.inner);
    const float* from = m.at(-1, layer, GATE).matrix ? gate : up;
    for (const Span& span : spans) {
        if (is_fused(span, layer) && span.many && k.many_tokens_by == ManyTokens::tiles) continue;
        for (int t = std::max(begin, span.begin); t < std::min(end, span.begin + span.n); t++) {
            const float* one = from + size_t(t) * c.inner;
            one = sub_normed(t, layer, MLP_SUB_NORM, one, c.inner, scratch.data());
            prepare(one, c.inner, inner.from(own(thread) + t), span.many);
        }
    }
}

}  // namespace riyaz
