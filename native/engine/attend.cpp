// Attention in a pass: where its tokens go in the cache, rotation, and the share of each thread.
#include <cmath>

#include "engine/pass.h"

namespace riyaz {
namespace {

constexpr int QUERIES = 64;  // tokens of one item of attention
constexpr int TILED = 8;     // tokens of a piece from which on tiles are filled well enough
static_assert(QUERIES * sizeof(float) <= product_scratch(1) - product_scratch(0));  // results of an item fit

}  // namespace

void Pass::plan_attention() {
    // in the order in which the runs were given, since a fork gets its parent's tokens when it is appended to
    std::vector<size_t> order(pieces.size());
    for (size_t p = 0; p < order.size(); p++) order[p] = p;
    std::sort(order.begin(), order.end(), [&](size_t one, size_t two) {
        return std::pair(pieces[one].run, pieces[one].first) < std::pair(pieces[two].run, pieces[two].first);
    });
    slots.resize(T), segments.resize(pieces.size());
    std::vector<Cache::Slot> own;
    for (const size_t p : order) {
        own.clear();
        m.cache.append(pieces[p].sequence, pieces[p].n, own);
        std::copy(own.begin(), own.end(), slots.begin() + pieces[p].begin);
    }
    const int G = c.heads / c.kv_heads;
    int furthest = 0;
    for (size_t p = 0; p < pieces.size(); p++) {
        const Piece& piece = pieces[p];
        m.cache.segments(piece.sequence, segments[p]);
        furthest = std::max(furthest, piece.position + piece.n);
        const int n = int(pieces.size()) * c.kv_heads * ((piece.n + QUERIES - 1) / QUERIES);
        const int parts = std::clamp(2 * threads / n, 1, G);  // so that every thread has something to do
        for (int from = 0; from < piece.n; from += QUERIES)
            for (int head = 0; head < c.kv_heads; head++)
                for (int i = 0; i < parts; i++) {
                    const int first = G * i / parts, last = G * (i + 1) / parts;
                    items.push_back({int(p), head, first, last - first, from, std::min(QUERIES, piece.n - from)});
                }
    }
    heads_alone = copies > 1 && int(items.size()) == c.kv_heads;
    m.turn_up_to(furthest);
    std::stable_sort(items.begin(), items.end(), [&](const Item& one, const Item& two) {  // the longest work first
        const auto cost = [&](const Item& item) { return int64_t(pieces[item.piece].position + item.from) * item.n; };
        return cost(one) > cost(two);
    });
}

// Keys and values into the cache
void Pass::positions(int thread, int layer) {
    int begin, end;
    share(T, thread, begin, end);
    for (int t = begin; t < end; t++)
        for (int head = 0; head < c.kv_heads; head++) position(layer, t, head);
}

// The same of one key/value head of token t: biases, norm and rotation before
void Pass::position(int layer, int t, int head) {
    const int h = c.heads + head;
    float *key = turn(layer, t, h), *v = key + c.kv_heads * c.head;
    if (const float* bias = bias_of(t, layer, h + c.kv_heads)) k.add_to(v, bias, c.head);
    const Cache::Slot& slot = slots[t];
    k.store_token(key, v, c.head, slot.slot, slot.page + m.cache.keys(layer, head),
                  slot.page + m.cache.values(layer, head), c.kv);
}

// The bias of one head of q, k and v, counted through; in a family with one matrix for the three, q has all
const float* Pass::bias_of(int t, int layer, int h) const {
    const int adapter = pieces[piece_of[t]].adapter, keys = c.heads, values = c.heads + c.kv_heads;
    const auto& all = m.at(adapter, layer, Q_BIAS).vector;
    if (size_t(h) * c.head < all.size()) return all.data() + size_t(h) * c.head;
    if (h < keys) return nullptr;
    const auto& own = m.at(adapter, layer, h < values ? K_BIAS : V_BIAS).vector;
    return own.empty() ? nullptr : own.data() + size_t(h - (h < values ? keys : values)) * c.head;
}

// Bias, norm and rotation of one head [D] of token t, in place; h: those of q, then those of k
float* Pass::turn(int layer, int t, int h) const {
    float* one = qkv + size_t(t) * qkv_width + size_t(h) * c.head;
    const Piece& piece = pieces[piece_of[t]];
    const int D = c.head, kind = c.rotations[layer];
    const bool is_query = h < c.heads;
    if (const float* bias = bias_of(t, layer, h)) k.add_to(one, bias, D);
    const auto& weight = m.at(piece.adapter, layer, is_query ? Q_NORM : K_NORM).vector;
    if (!weight.empty()) {
        float scratch[MAX_HEAD];
        k.rms_norm(one, weight.data(), c.eps, D, scratch);
        memcpy(one, scratch, sizeof(float) * D);
    }
    const float scale = is_query ? c.query_scale / std::sqrt(float(D)) : 1;
    const size_t place = size_t(piece.position + t - piece.begin) * (D / 2);
    if (kind >= 0)
        k.rotate(one, m.cos_[kind].data() + place, m.sin_[kind].data() + place, D, scale);
    else if (is_query)
        for (int i = 0; i < D; i++) one[i] *= scale;
    return one;
}

// Items turn their own queries. What is converted at once does not leave the cache: it goes to the thread's scratch.
void Pass::attend(int thread, int layer) {
    const int G = c.heads / c.kv_heads;
    while (true) {
        const int next = cursors[layer].fetch_add(1, std::memory_order_relaxed);
        if (next >= int(items.size())) break;
        const Item& item = items[next];
        const Piece& piece = pieces[item.piece];
        const size_t t = size_t(piece.begin + item.from), column = size_t(item.head * G + item.first) * c.head;
        for (int i = 0; i < item.n; i++) {
            for (int h = 0; h < item.G; h++) turn(layer, int(t) + i, item.head * G + item.first + h);
            if (heads_alone) position(layer, int(t) + i, item.head);
        }
        Attention job;
        job.q = qkv + t * qkv_width + column, job.q_stride = qkv_width;
        job.out = sliced ? (float*)scratch(thread) : attended + t * heads_width + column;
        job.out_stride = sliced ? item.G * c.head : heads_width;
        job.n = item.n, job.G = item.G, job.head = c.head;
        job.position = piece.position + item.from, job.window = c.windows[layer];
        job.segments = segments[item.piece].data(), job.count = int(segments[item.piece].size());
        job.keys = m.cache.keys(layer, item.head), job.values = m.cache.values(layer, item.head);
        job.kv = c.kv;
        const bool tiles = piece.many && piece.n >= TILED && k.many_tokens_by == ManyTokens::tiles && c.kv == Kv::bf16;
        (tiles ? k.attend_tiles : k.attend)(job);
        for (int i = 0; sliced && i < item.n; i++) {
            Inputs own = heads.from(int(t) + i);
            if (own.fp32) own.fp32 += column;
            if (own.bf16) own.bf16 += column;
            if (own.strips) own.strips += column * own.strip_rows;
            if (own.codes) {
                const size_t group = column / (piece.many ? heads.many_tokens_group : GROUP);
                own.codes += column, own.low += column;
                own.scale += group, own.sum += group, own.total += group;
            }
            own.cols = item.G * c.head;
            prepare(job.out + i * job.out_stride, item.G * c.head, own, piece.many);
        }
    }
}

}  // namespace riyaz
