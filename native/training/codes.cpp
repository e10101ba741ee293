#include "training/codes.h"

#include <algorithm>
#include <cmath>

#include "engine/memory.h"
#include "training/memory.h"
#include "training/team.h"

namespace riyaz {
namespace {

constexpr int TOKENS = 512;  // whose codes stay in the second cache while weights pass
constexpr int ENCODED = 24;  // tokens that one thread encodes at a time, a multiple of LORA_LINES
constexpr int GROUPS = 64;   // of a strip that stay in the second cache while tokens pass
static_assert(ENCODED % LORA_LINES == 0 && ENCODED % 2 == 0);

// Numbers of a word that thin products read
int in_word(const Kernels& k, bool bf16) { return k.trains_in_pairs && bf16 ? 2 : 1; }

// All tokens as codes
class Encoded {
  public:
    Encoded(int T, int groups)
        : codes_(space<int8_t>(size_t(T) * groups * CODE_GROUP)),
          scale_(space<float>(size_t(T) * groups)),
          total_(space<int32_t>(size_t(T) * groups)),
          tokens{groups, codes_.get(), scale_.get(), total_.get()} {}

  private:
    Space<int8_t> codes_;
    Space<float> scale_;
    Space<int32_t> total_;

  public:
    const CodedTokens tokens;
};

// What one thread works with
struct Bench {
    Space<float> results, up, gradients, words;
    std::vector<CodeTerm> terms;
};

// `groups`: of all matrices of a product
std::vector<Bench> benches(int threads, int groups, int lanes) {
    const auto count = size_t(threads);
    std::vector<Bench> all(count);
    for (Bench& bench : all) {
        bench.results = space<float>(size_t(TOKENS) * STRIP), bench.terms.reserve(size_t(groups));
        bench.up = space<float>(size_t(lanes) * STRIP);
    }
    return all;
}

// y (T, rows) = the sum of products of codes, plus low (T, lanes) times the words of `up`. A part is one strip of rows
// of some tokens.
struct CodeProduct {
    const Kernels& k;
    std::vector<std::pair<const FrozenCodes*, const CodedTokens*>> factors;
    MatrixView y;
    int T, rows;
    MatrixView low = {};
    int lanes = 0;

    int strips() const { return parts_of(rows, STRIP); }
    int parts() const { return parts_of(T, TOKENS) * strips(); }
    // `words(row, width)` writes bench.up for these rows
    template <class Words>
    void run(int part, Bench& bench, const Words& words) const {
        const int first = part / strips() * TOKENS, strip = part % strips(), row = strip * STRIP;
        std::vector<CodeTerm>& terms = bench.terms;
        terms.clear();
        for (const auto& [w, x] : factors)
            for (int g = 0; g < w->groups; g += GROUPS)
                terms.push_back(w->term(strip, g, std::min(GROUPS, w->groups - g), x->from(first, g)));
        StripJob job = {};
        job.T = std::min(T - first, TOKENS), job.width = std::min(STRIP, rows - row);
        job.results = bench.results.get(), job.begins = true;
        job.low = low.from(size_t(first), 0), job.lanes = lanes, job.up = bench.up.get();
        job.y = y.from(size_t(first), size_t(row));
        if (lanes) words(row, job.width);
        for (size_t i = 0; i < terms.size(); i += size_t(job.count), job.begins = false) {
            job.terms = &terms[i], job.count = 1;
            int groups = terms[i].groups;
            while (i + job.count < terms.size() && (groups += terms[i + job.count].groups) <= GROUPS) job.count++;
            job.ends = i + job.count == terms.size();
            k.code_strip(job);
        }
    }
};

// Words of A (rank, in) of all layers, or of B (out, rank) of one, for lora_low: [in / S][lanes], or [out / S][lanes]
Space<float> words_of_a(const Kernels& k, const LoraJob& job) {
    const int lanes = lora_lanes(job), S = in_word(k, job.x.bf16);
    Space<float> words = zeros(size_t(parts_of(job.in, S)) * lanes);
    int lane = 0;
    for (const LoraLayer& layer : job.layers) {
        k.words_of_columns(layer.a, layer.rank, job.in, words.get() + lane, lanes);
        lane += padded_rank(layer.rank);
    }
    return words;
}
Space<float> words_of_b(const Kernels& k, const LoraLayer& layer) {
    const int lanes = padded_rank(layer.rank), S = in_word(k, layer.b.bf16);
    Space<float> words = space<float>(size_t(parts_of(layer.out, S)) * lanes);
    k.words_of_lines(layer.b, layer.out, layer.rank, words.get(), lanes);
    return words;
}

size_t low_scratch(int cols) { return size_t(LORA_LINES) * padded(cols, 16); }

}  // namespace

FrozenCodes::FrozenCodes(int rows_, int cols_) : rows(rows_), cols(cols_), groups(parts_of(cols_, CODE_GROUP)) {
    const size_t all = size_t(parts_of(rows, STRIP)) * groups;
    codes_ = take_memory(all * CODE_STEPS * STEP_BYTES), scales_ = take_memory(all * STRIP * sizeof(float));
}

// Of the first group
uint8_t* FrozenCodes::codes_of(int row) const {
    return codes_.get() + size_t(row / STRIP) * groups * CODE_STEPS * STEP_BYTES + size_t(row % STRIP) * 4;
}
float* FrozenCodes::scales_of(int row) const {
    return (float*)scales_.get() + size_t(row / STRIP) * groups * STRIP + row % STRIP;
}

CodeTerm FrozenCodes::term(int strip, int group, int count, const CodedTokens& x) const {
    return {codes_of(strip * STRIP) + size_t(group) * CODE_STEPS * STEP_BYTES,
            scales_of(strip * STRIP) + size_t(group) * STRIP, count, x};
}

bool FrozenCodes::fill(int first, int count, const float* weights, int threads) {
    const size_t all = size_t(count) * cols;
    if (std::any_of(weights, weights + all, [](float x) { return !std::isfinite(x); })) return false;
    share(parts_of(count, STRIP), threads, [&](int part, int) {
        for (int r = part * STRIP; r < std::min(count, (part + 1) * STRIP); r++)
            for (int g = 0; g < groups; g++) {
                const float* from = weights + size_t(r) * cols + size_t(g) * CODE_GROUP;
                const int n = std::min(CODE_GROUP, cols - g * CODE_GROUP);
                uint8_t* to = codes_of(first + r) + size_t(g) * CODE_STEPS * STEP_BYTES;
                float largest = 0;
                for (int c = 0; c < n; c++) largest = std::max(largest, std::fabs(from[c]));
                const float scale = largest / 127, inverse = largest > 1e-30f ? 127 / largest : 0;
                scales_of(first + r)[size_t(g) * STRIP] = scale;
                for (int c = 0; c < n; c++)
                    to[size_t(c / 4) * STEP_BYTES + c % 4] = uint8_t(int(std::nearbyint(from[c] * inverse)) + 128);
            }
    });
    return true;
}

void code_product(const Kernels& k, const FrozenCodes& w, const MatrixView& x, int T, const MatrixView& y,
                  int threads) {
    threads = std::max(1, threads);
    const Encoded encoded(T, w.groups);
    share(parts_of(T, ENCODED), threads, [&](int part, int) {
        const int begin = part * ENCODED, end = std::min(T, begin + ENCODED);
        k.encode_tokens(x.from(size_t(begin), 0), end - begin, w.cols, encoded.tokens.from(begin, 0));
    });
    std::vector<Bench> bench = benches(threads, w.groups, 0);
    const CodeProduct product{k, {{&w, &encoded.tokens}}, y, T, w.rows};
    share(product.parts(), threads, [&](int part, int thread) { product.run(part, bench[thread], [](int, int) {}); });
}

int lora_lanes(const LoraJob& job) {
    int lanes = 0;
    for (const LoraLayer& layer : job.layers) lanes += padded_rank(layer.rank);
    return lanes;
}

void lora_forward(const Kernels& k, const LoraJob& job, int threads) {
    threads = std::max(1, threads);
    const int lanes = lora_lanes(job);
    const Encoded encoded(job.T, job.layers[0].weights->groups);
    const Space<float> words = words_of_a(k, job);
    std::vector<float> scales;
    for (const LoraLayer& layer : job.layers) scales.resize(scales.size() + padded_rank(layer.rank), layer.scale);
    const size_t room = low_scratch(job.in);
    const auto rooms = space<float>(room * threads);
    share(parts_of(job.T, ENCODED), threads, [&](int part, int thread) {
        const int begin = part * ENCODED, end = std::min(job.T, begin + ENCODED);
        const MatrixView x = job.x.from(size_t(begin), 0);
        k.encode_tokens(x, end - begin, job.in, encoded.tokens.from(begin, 0));
        const MatrixView low = MatrixView{job.low, size_t(lanes), job.x.bf16}.from(size_t(begin), 0);
        k.lora_low({x, end - begin, job.in, lanes, words.get(), scales.data(), (void*)low.data, low.row,
                    rooms.get() + room * thread});
    });

    std::vector<CodeProduct> products;
    std::vector<int> ends;  // of the parts of each
    int parts = 0, lane = 0;
    for (const LoraLayer& layer : job.layers) {
        const int own = padded_rank(layer.rank);
        const MatrixView low = MatrixView{job.low, size_t(lanes), job.x.bf16}.from(0, size_t(lane));
        products.push_back({k, {{layer.weights, &encoded.tokens}}, layer.y, job.T, layer.out, low, own});
        lane += own, parts += products.back().parts(), ends.push_back(parts);
    }
    std::vector<Bench> bench = benches(threads, encoded.tokens.groups, lanes);
    share(parts, threads, [&](int part, int thread) {
        const size_t i = size_t(std::upper_bound(ends.begin(), ends.end(), part) - ends.begin());
        const LoraLayer& layer = job.layers[i];
        float* up = bench[thread].up.get();
        products[i].run(part - (i ? ends[i - 1] : 0), bench[thread], [&](int row, int width) {
            const int end = padded_rank(layer.rank) / in_word(k, job.x.bf16);
            std::fill_n(up, size_t(end) * STRIP, 0.0f);
            k.words_of_columns(layer.b.from(size_t(row), 0), width, layer.rank, up, STRIP);
        });
    });
}

namespace {

// What the parts of a backward pass share: the words of `low` and of its gradient are [T / S][lanes].
struct Backward {
    const Kernels& k;
    const LoraJob& job;
    int lanes = lora_lanes(job), S = in_word(k, job.x.bf16);
    int groups = 0;
    std::vector<Space<float>> words_b = {};
    std::vector<std::vector<float>> scales = {};
    std::vector<std::unique_ptr<Encoded>> encoded = {};
    std::vector<int> first_lane = {};
    Space<float> grad_low = space<float>(size_t(job.T) * lanes);
    Space<float> low_words = space<float>(size_t(parts_of(job.T, S)) * lanes);
    Space<float> grad_words = space<float>(size_t(parts_of(job.T, S)) * lanes);

    Backward(const Kernels& kernels, const LoraJob& all) : k(kernels), job(all) {
        int lane = 0;
        for (const LoraLayer& layer : job.layers) {
            words_b.push_back(words_of_b(k, layer)), groups += layer.weights->groups;
            scales.emplace_back(size_t(padded_rank(layer.rank)), layer.scale);
            if (job.grad_x) encoded.push_back(std::make_unique<Encoded>(job.T, layer.weights->groups));
            first_lane.push_back(lane), lane += padded_rank(layer.rank);
        }
    }
    MatrixView gradient_of_low() const { return {grad_low.get(), size_t(lanes), job.x.bf16}; }

    // The gradient of `low`, and all words, of some tokens of one layer
    void prepare(size_t i, int begin, int end, float* room) const {
        const LoraLayer& layer = job.layers[i];
        const int own = padded_rank(layer.rank), lane = first_lane[i];
        const MatrixView y = layer.y.from(size_t(begin), 0);
        if (job.grad_x) k.encode_tokens(y, end - begin, layer.out, encoded[i]->tokens.from(begin, 0));
        const MatrixView low = MatrixView{job.low, size_t(lanes), job.x.bf16}.from(size_t(begin), size_t(lane));
        const MatrixView grad = gradient_of_low().from(size_t(begin), size_t(lane));
        k.lora_low(
            {y, end - begin, layer.out, own, words_b[i].get(), scales[i].data(), (void*)grad.data, grad.row, room});
        const size_t at = size_t(begin / S) * lanes + lane;
        k.words_of_lines(low, end - begin, own, low_words.get() + at, lanes);
        k.words_of_lines(grad, end - begin, own, grad_words.get() + at, lanes);
    }
    // The words of A's columns [row, row + width), of all layers below each other: [lanes / S][STRIP]
    void words_of_a(int row, int width, float* out) const {
        std::fill_n(out, size_t(lanes / S) * STRIP, 0.0f);
        for (size_t i = 0; i < job.layers.size(); i++) {
            const LoraLayer& layer = job.layers[i];
            k.words_of_lines(layer.a.from(0, size_t(row)), layer.rank, width, out + first_lane[i] / S * STRIP, STRIP);
        }
    }
    // Adds to columns [begin, begin + LORA_COLUMNS) of the gradients of all A.
    void add_gradient_a(int begin, const Bench& bench) const {
        const int width = std::min(LORA_COLUMNS, job.in - begin);
        k.lora_gradient(grad_words.get(), lanes, lanes, job.x.from(0, size_t(begin)), job.T, width, bench.words.get(),
                        bench.gradients.get());
        for (size_t i = 0; i < job.layers.size(); i++)
            for (int r = 0; r < job.layers[i].rank; r++)
                k.add_to(job.layers[i].grad_a + size_t(r) * job.in + begin,
                         bench.gradients.get() + size_t(first_lane[i] + r) * LORA_COLUMNS, width);
    }
    // The same for rows of the gradient of one B
    void add_gradient_b(size_t i, int begin, const Bench& bench) const {
        const LoraLayer& layer = job.layers[i];
        const int width = std::min(LORA_COLUMNS, layer.out - begin);
        k.lora_gradient(low_words.get() + first_lane[i], lanes, padded_rank(layer.rank), layer.y.from(0, size_t(begin)),
                        job.T, width, bench.words.get(), bench.gradients.get());
        for (int c = 0; c < width; c++)
            for (int r = 0; r < layer.rank; r++)
                layer.grad_b[size_t(begin + c) * layer.rank + r] += bench.gradients[size_t(r) * LORA_COLUMNS + c];
    }
};

}  // namespace

void lora_backward(const Kernels& k, const LoraJob& job, int threads) {
    if (!job.T) return;
    threads = std::max(1, threads);
    const Backward all(k, job);
    const int layers = int(job.layers.size()), pieces = parts_of(job.T, ENCODED);
    int widest = 0;
    for (const LoraLayer& layer : job.layers) widest = std::max(widest, layer.out);
    const size_t room = low_scratch(widest);
    const auto rooms = space<float>(room * threads);
    share(layers * pieces, threads, [&](int part, int thread) {
        const int begin = part % pieces * ENCODED;
        all.prepare(size_t(part / pieces), begin, std::min(job.T, begin + ENCODED), rooms.get() + room * thread);
    });

    CodeProduct product{k, {}, {job.grad_x, size_t(job.in), job.x.bf16}, job.T, job.in};
    product.low = all.gradient_of_low(), product.lanes = all.lanes;
    for (int i = 0; job.grad_x && i < layers; i++)
        product.factors.push_back({job.layers[i].weights, &all.encoded[i]->tokens});
    const int products = job.grad_x ? product.parts() : 0;
    std::vector<std::pair<int, int>> gradients;  // (layer, first row) of parts of B's; of A's the layer is -1
    for (int c = 0; c < job.in; c += LORA_COLUMNS) gradients.push_back({-1, c});
    for (int i = 0; i < layers; i++)
        for (int c = 0; c < job.layers[i].out; c += LORA_COLUMNS) gradients.push_back({i, c});
    std::vector<Bench> bench = benches(threads, all.groups, all.lanes);
    for (Bench& own : bench) {
        own.gradients = space<float>(size_t(all.lanes) * LORA_COLUMNS);
        own.words = space<float>(size_t(LORA_TOKENS) * LORA_COLUMNS);
    }
    share(products + int(gradients.size()), threads, [&](int part, int thread) {
        Bench& own = bench[thread];
        if (part < products)
            return product.run(part, own, [&](int row, int width) { all.words_of_a(row, width, own.up.get()); });
        const auto& [layer, begin] = gradients[part - products];
        if (layer < 0)
            all.add_gradient_a(begin, own);
        else
            all.add_gradient_b(size_t(layer), begin, own);
    });
}

}  // namespace riyaz
