#include "engine/encoder.h"

#include <atomic>
#include <cmath>
#include <stdexcept>

#include "engine/pass.h"

namespace riyaz {

namespace {

constexpr int PART = 256;  // tokens that a thread takes through all layers together: their states stay in its cache
constexpr int BLOCKS = 4;  // of 16 rows of a matrix that all tokens of a part go through together, without tiles

struct TextPart {  // texts [begin, end)
    int begin, end, tokens;
};

// Whole texts in a row, up to `most` tokens in each part
std::vector<TextPart> parts_of(const int32_t* lengths, int n, int most) {
    std::vector<TextPart> parts;
    for (int i = 0; i < n; i++) {
        if (parts.empty() || parts.back().tokens + lengths[i] > most) parts.push_back({i, i, 0});
        parts.back().end++, parts.back().tokens += lengths[i];
    }
    return parts;
}

}  // namespace

// The memory of one thread, kept for the next part
struct TextBuffers {
    Array<float> x, qkv, attended, up;
    InputsMemory hidden, inner;
    Array<uint8_t> scratch, pages;
};

// One part's way through the model, on one thread
struct TextPass {
    TextPass(Encoder& encoder, TextBuffers& buffers, int T, int longest);
    void run(const int32_t* tokens, const int32_t* lengths, int n, float* out);

  private:
    void embed(const int32_t* tokens, const int32_t* lengths, int n);
    void to_inputs(const float* from, int n, const Inputs& to) const {
        (e.by_tiles_ ? k.many_tokens_inputs : k.inputs)(from, n, to);
    }
    void product(const Weights& w, const Inputs& in, float* y, size_t stride, bool add);
    void attend(int first, int length);
    void add_and_norm(const std::vector<float>& bias, const std::vector<float>& weight,
                      const std::vector<float>& norm_bias);
    void pool(const int32_t* lengths, int n, float* out);
    size_t keys(int head) const { return size_t(head) * (key_bytes(width, kv) + value_bytes(width, kv)); }
    size_t values(int head) const { return keys(head) + key_bytes(width, kv); }

    const Encoder& e;
    const EncoderConfig& c;
    const Kernels& k;
    const int T, C, F, D, width;  // width: D, padded
    const Kv kv;
    float *x, *qkv, *attended, *up;
    Inputs hidden, inner;
    uint8_t *scratch, *pages;
    std::vector<Segment> segments;
};

TextPass::TextPass(Encoder& encoder, TextBuffers& b, int tokens, int longest)
    : e(encoder),
      c(encoder.config),
      k(encoder.k_),
      T(tokens),
      C(c.hidden),
      F(c.inner),
      D(C / c.heads),
      width(padded(D, GROUP)),
      kv(c.fp32 ? Kv::fp32 : Kv::bf16),
      segments(padded(longest, SLOTS) / SLOTS) {
    x = b.x.get(size_t(T) * C), qkv = b.qkv.get(size_t(T) * 3 * C), attended = b.attended.get(size_t(T) * C);
    up = b.up.get(size_t(T) * F);
    Forms forms;
    forms.fp32 = c.fp32, forms.strips = e.by_tiles_, forms.bf16 = !c.fp32 && !e.by_tiles_;
    hidden = b.hidden.get(T, padded(C, GROUP), forms), inner = b.inner.get(T, padded(F, GROUP), forms);
    scratch = b.scratch.get(product_scratch(padded(std::max(C, F), GROUP)));
    // Slots and dimensions that no token fills hold zeros, or numbers of an earlier text, whose weights are zero.
    const size_t page = keys(c.heads);
    pages = b.pages.get(page * segments.size());
    for (size_t s = 0; s < segments.size(); s++)
        segments[s].page = pages + s * page, segments[s].first = int(s) * SLOTS;
}

void TextPass::run(const int32_t* tokens, const int32_t* lengths, int n, float* out) {
    embed(tokens, lengths, n);
    for (const EncoderLayer& layer : e.layers) {
        product(layer.qkv.weights, hidden, qkv, size_t(3) * C, false);
        for (int t = 0; t < T; t++) k.add_to(qkv + size_t(t) * 3 * C, layer.qkv_bias.data(), 3 * C);
        for (int i = 0, first = 0; i < n; first += lengths[i++]) attend(first, lengths[i]);
        for (int t = 0; t < T; t++) to_inputs(attended + size_t(t) * C, C, hidden.from(t));
        product(layer.o.weights, hidden, x, C, true);
        add_and_norm(layer.o_bias, layer.attention_norm, layer.attention_norm_bias);
        product(layer.up.weights, hidden, up, F, false);
        for (int t = 0; t < T; t++) {
            k.gelu_erf(up + size_t(t) * F, layer.up_bias.data(), F);
            to_inputs(up + size_t(t) * F, F, inner.from(t));
        }
        product(layer.down.weights, inner, x, C, true);
        add_and_norm(layer.down_bias, layer.output_norm, layer.output_norm_bias);
    }
    pool(lengths, n, out);
}

void TextPass::embed(const int32_t* tokens, const int32_t* lengths, int n) {
    for (int i = 0, t = 0; i < n; i++)
        for (int position = 0; position < lengths[i]; position++, t++) {
            float* to = x + size_t(t) * C;
            memcpy(to, e.words.data() + size_t(tokens[t]) * C, sizeof(float) * C);
            k.add_to(to, e.positions.data() + size_t(position) * C, C);
            k.layer_norm(to, e.norm.data(), e.norm_bias.data(), c.eps, C, to);
            to_inputs(to, C, hidden.from(t));
        }
}

// The same kernel for any number of tokens, so that a vector does not depend on the texts beside it.
void TextPass::product(const Weights& w, const Inputs& in, float* y, size_t stride, bool add) {
    if (e.by_tiles_) return k.many_tokens(w, 0, w.blocks(), in, T, y, stride, add, scratch);
    for (int begin = 0; begin < w.blocks(); begin += BLOCKS)
        k.few_tokens(w, begin, std::min(begin + BLOCKS, w.blocks()), in, T, y, stride, add, nullptr, scratch);
}

// Every token of the text, from token `first` on, sees all of them.
void TextPass::attend(int first, int length) {
    const float* q = qkv + size_t(first) * 3 * C;
    const int count = padded(length, SLOTS) / SLOTS;
    for (int s = 0; s < count; s++) {
        const int n = std::min(SLOTS, length - s * SLOTS);
        segments[s].mask = ~0u >> (SLOTS - n);
        for (int i = 0; i < n; i++) {
            const float* own = q + (size_t(s) * SLOTS + i) * 3 * C + C;
            for (int h = 0; h < c.heads; h++)
                k.store_token(own + h * D, own + C + h * D, D, i, (uint8_t*)segments[s].page + keys(h),
                              (uint8_t*)segments[s].page + values(h), kv);
        }
    }
    Attention job;
    job.q_stride = size_t(3) * C, job.out_stride = size_t(C), job.n = length, job.G = 1, job.head = D;
    job.position = length - 1, job.segments = segments.data(), job.count = count, job.kv = kv;
    for (int h = 0; h < c.heads; h++) {
        job.q = q + h * D, job.out = attended + size_t(first) * C + h * D;
        job.keys = keys(h), job.values = values(h);
        (e.by_tiles_ ? k.attend_tiles : k.attend)(job);
    }
}

// The end of both halves of a layer: the bias, and the norm of the sum
void TextPass::add_and_norm(const std::vector<float>& bias, const std::vector<float>& weight,
                            const std::vector<float>& norm_bias) {
    for (int t = 0; t < T; t++) {
        float* own = x + size_t(t) * C;
        k.add_to(own, bias.data(), C);
        k.layer_norm(own, weight.data(), norm_bias.data(), c.eps, C, own);
        to_inputs(own, C, hidden.from(t));
    }
}

void TextPass::pool(const int32_t* lengths, int n, float* out) {
    const float* from = x;
    for (int i = 0; i < n; i++) {
        float* vector = out + size_t(i) * C;
        std::fill_n(vector, C, 0.0f);
        for (int t = 0; t < lengths[i]; t++, from += C) k.add_to(vector, from, C);
        double squares = 0;
        for (int d = 0; d < C; d++) vector[d] /= float(lengths[i]), squares += double(vector[d]) * vector[d];
        const float length = std::max(float(std::sqrt(squares)), 1e-12f);
        for (int d = 0; d < C; d++) vector[d] /= length;
    }
}

Encoder::Encoder(const EncoderConfig& given, int threads, const Kernels& kernels)
    : config(given),
      layers(given.layers),
      k_(kernels),
      by_tiles_(kernels.many_tokens_by == ManyTokens::tiles && !given.fp32),
      pool_(threads) {
    for (int thread = 0; thread < pool_.size(); thread++) buffers_.push_back(std::make_unique<TextBuffers>());
}

Encoder::~Encoder() = default;

void Encoder::embed(const int32_t* tokens, const int32_t* lengths, int n, float* out) {
    const std::lock_guard<std::mutex> alone(busy_);
    int total = 0, longest = 0;
    std::vector<int> first(n);  // token of each text
    for (int i = 0; i < n; i++) first[i] = total, total += lengths[i], longest = std::max(longest, lengths[i]);
    const std::vector<TextPart> parts = parts_of(lengths, n, std::min(PART, (total + pool_.size() - 1) / pool_.size()));
    int widest = 0;
    for (const TextPart& part : parts) widest = std::max(widest, part.tokens);
    for (auto& own : buffers_)
        TextPass(*this, *own, widest, longest);  // a thread cannot report that there is no memory
    std::atomic<int> next{0};
    const auto work = [&](int thread) {
        for (int p; (p = next.fetch_add(1, std::memory_order_relaxed)) < int(parts.size());) {
            const TextPart& part = parts[p];
            TextPass(*this, *buffers_[thread], part.tokens, longest)
                .run(tokens + first[part.begin], lengths + part.begin, part.end - part.begin,
                     out + size_t(part.begin) * config.hidden);
        }
    };
    if (parts.size() == 1)
        work(0);
    else
        pool_.run(work);
    for (size_t i = 0; i < size_t(n) * config.hidden; i++)
        if (!std::isfinite(out[i])) throw std::runtime_error("the vector of a text holds a number that is none");
}

}  // namespace riyaz
