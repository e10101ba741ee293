#include "training_codes.h"

#include <algorithm>
#include <memory>
#include <new>

#include "training_team.h"

namespace riyaz {
namespace {

constexpr int TOKENS = 512;  // whose inputs stay in the second cache while weights pass
constexpr int ENCODED = 24;  // tokens that one thread encodes at a time, a multiple of LORA_LINES
constexpr int BLOCKS = 2;    // of rows, of a part of a product: as many as are unpacked at a time
constexpr int WIDTH = BLOCKS * ROWS;
static_assert(ENCODED % LORA_LINES == 0 && ENCODED % 2 == 0);

struct Release {
    void operator()(void* at) const { ::operator delete[](at, std::align_val_t(64)); }
};
template <class Number>
using Space = std::unique_ptr<Number[], Release>;

template <class Number>
Space<Number> space(size_t count) {
    return Space<Number>((Number*)::operator new[](count * sizeof(Number), std::align_val_t(64)));
}
Space<float> zeros(size_t count) {
    Space<float> numbers = space<float>(count);
    std::fill_n(numbers.get(), count, 0.0f);
    return numbers;
}

int parts_of(int count, int each) { return (count + each - 1) / each; }

// Numbers of a word that thin products read
int in_word(const Kernels& k, bool bf16) { return k.trains_in_pairs && bf16 ? 2 : 1; }

// The inputs of all tokens in the form that a product with many tokens takes
class Encoded {
  public:
    Encoded(const Kernels& k, const Weights& w, size_t T) {
        in.cols = w.cols;
        if (k.wide_kind == Wide::tiles) {
            bf16 = space<uint16_t>((T + 31) / 32 * 32 * w.cols), in.bf16 = bf16.get();
            return;
        }
        codes = space<int8_t>(T * w.cols), in.codes = codes.get();
        scale = space<float>(T * w.groups()), in.scale = scale.get();
        sum = space<float>(T * w.groups()), in.sum = sum.get();
        total = space<int32_t>(T * w.groups()), in.total = total.get();
    }
    Inputs from(int t) const { return in.from(t); }
    // Tokens [begin, end) of x (T, cols), with room for one of them as floats
    void encode(const Kernels& k, const Lines& x, int cols, int begin, int end, float* room) const {
        for (int t = begin; t < end; t++) {
            const Lines line = x.from(size_t(t), 0);
            if (x.bf16) k.load_rows(line, 1, cols, room, cols);
            (k.wide_kind == Wide::none ? k.inputs : k.wide_inputs)(x.bf16 ? room : (const float*)line.data, cols,
                                                                   from(t));
        }
    }

  private:
    Space<int8_t> codes;
    Space<float> scale, sum;
    Space<int32_t> total;
    Space<uint16_t> bf16;
    Inputs in;
};

// What one thread works with: results of a part, and the kernels' own room
struct Bench {
    Space<float> results, up, gradients, words;
    Space<uint8_t> scratch;
};

std::vector<Bench> benches(int threads, int cols, int lanes) {
    std::vector<Bench> all(size_t(std::max(1, threads)));
    for (Bench& bench : all) {
        bench.results = space<float>(size_t(TOKENS) * WIDTH), bench.scratch = space<uint8_t>(wide_scratch(cols));
        if (!lanes) continue;
        bench.up = zeros(size_t(lanes) * WIDTH), bench.gradients = space<float>(size_t(lanes) * LORA_COLUMNS);
        bench.words = space<float>(size_t(LORA_TOKENS) * LORA_COLUMNS);
    }
    return all;
}

// Part `part` of y (T, rows) = the sum of the products of codes, plus low (T, lanes) times the words of `up`, or y +
// all of that: tokens of one piece, rows of one strip
struct Product {
    const Kernels& k;
    std::vector<std::pair<const Weights*, const Encoded*>> terms;
    Lines y;
    int T, rows;
    bool add = false;
    Lines low = {};
    int lanes = 0;

    int strips() const { return parts_of(rows, WIDTH); }
    int parts() const { return parts_of(T, TOKENS) * strips(); }
    // `words(row, width)` writes bench.up for these rows
    template <class Words>
    void run(int part, const Bench& bench, const Words& words) const {
        const int first = part / strips() * TOKENS, n = std::min(T - first, TOKENS);
        const int strip = part % strips(), row = strip * WIDTH, width = std::min(WIDTH, rows - row);
        const Lines out = y.from(size_t(first), size_t(row));
        float* results = bench.results.get();
        if (add) k.load_rows(out, n, width, results, WIDTH);
        bool more = add;
        for (const auto& [w, encoded] : terms) {
            const int begin = strip * BLOCKS, end = std::min(begin + BLOCKS, w->blocks());
            const Inputs in = encoded->from(first);
            if (k.wide_kind == Wide::none)
                k.narrow(*w, begin, end, in, n, results - row, WIDTH, more, nullptr);
            else
                k.wide(*w, begin, end, in, n, results - row, WIDTH, more, bench.scratch.get());
            more = true;
        }
        if (lanes) {
            words(row, width);
            k.lora_add(low.from(size_t(first), 0), n, lanes, bench.up.get(), parts_of(width, 16), results, WIDTH);
        }
        k.store_rows(results, WIDTH, n, width, (void*)out.data, out.row, out.bf16);
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

void code_product(const Kernels& k, const Weights& w, int cols, const void* x, size_t T, bool bf16, void* y, bool add,
                  int threads) {
    const Encoded encoded(k, w, T);
    const auto room = space<float>(size_t(cols) * threads);
    share(parts_of(int(T), ENCODED), threads, [&](int part, int thread) {
        encoded.encode(k, {x, size_t(cols), bf16}, cols, part * ENCODED, std::min(int(T), (part + 1) * ENCODED),
                       room.get() + size_t(cols) * thread);
    });
    const std::vector<Bench> bench = benches(threads, w.cols, 0);
    const Product product{k, {{&w, &encoded}}, {y, size_t(w.rows), bf16}, int(T), w.rows, add};
    share(product.parts(), threads, [&](int part, int thread) { product.run(part, bench[thread], [](int, int) {}); });
}

int lora_lanes(const LoraJob& job) {
    int lanes = 0;
    for (const LoraLayer& layer : job.layers) lanes += padded_rank(layer.rank);
    return lanes;
}

void lora_forward(const Kernels& k, const LoraJob& job, int threads) {
    const int lanes = lora_lanes(job);
    const size_t in = size_t(job.in);
    const Encoded encoded(k, *job.layers[0].weights, size_t(job.T));
    const Space<float> words = words_of_a(k, job);
    std::vector<float> scales;
    for (const LoraLayer& layer : job.layers) scales.resize(scales.size() + padded_rank(layer.rank), layer.scale);
    const auto room = space<float>((in + low_scratch(job.in)) * threads);
    share(parts_of(job.T, ENCODED), threads, [&](int part, int thread) {
        const int begin = part * ENCODED, end = std::min(job.T, begin + ENCODED);
        float* own = room.get() + (in + low_scratch(job.in)) * thread;
        encoded.encode(k, job.x, job.in, begin, end, own + low_scratch(job.in));
        const Lines low = Lines{job.low, size_t(lanes), job.x.bf16}.from(size_t(begin), 0);
        k.lora_low({job.x.from(size_t(begin), 0), end - begin, job.in, lanes, words.get(), scales.data(),
                    (void*)low.data, low.row, own});
    });

    std::vector<Product> products;
    std::vector<int> ends;  // of the parts of each
    int parts = 0, lane = 0;
    for (const LoraLayer& layer : job.layers) {
        const int own = padded_rank(layer.rank);
        const Lines low = Lines{job.low, size_t(lanes), job.x.bf16}.from(0, size_t(lane));
        products.push_back({k, {{layer.weights, &encoded}}, layer.y, job.T, layer.out, false, low, own});
        lane += own, parts += products.back().parts(), ends.push_back(parts);
    }
    const std::vector<Bench> bench = benches(threads, job.layers[0].weights->cols, lanes);
    share(parts, threads, [&](int part, int thread) {
        const size_t i = size_t(std::upper_bound(ends.begin(), ends.end(), part) - ends.begin());
        const LoraLayer& layer = job.layers[i];
        float* up = bench[thread].up.get();
        products[i].run(part - (i ? ends[i - 1] : 0), bench[thread], [&](int row, int width) {
            const int end = padded_rank(layer.rank) / in_word(k, job.x.bf16);
            std::fill_n(up, size_t(end) * WIDTH, 0.0f);
            k.words_of_columns(layer.b.from(size_t(row), 0), width, layer.rank, up, WIDTH);
        });
    });
}

namespace {

// What the parts of a backward pass share: the words of `low` and of its gradient are [T / S][lanes].
struct Backward {
    const Kernels& k;
    const LoraJob& job;
    int lanes = lora_lanes(job), S = in_word(k, job.x.bf16);
    std::vector<Space<float>> words_b = {};
    std::vector<std::unique_ptr<Encoded>> encoded = {};
    std::vector<int> first_lane = {};
    Space<float> grad_low = space<float>(size_t(job.T) * lanes);
    Space<float> low_words = space<float>(size_t(parts_of(job.T, S)) * lanes);
    Space<float> grad_words = space<float>(size_t(parts_of(job.T, S)) * lanes);

    Backward(const Kernels& kernels, const LoraJob& all) : k(kernels), job(all) {
        int lane = 0;
        for (const LoraLayer& layer : job.layers) {
            words_b.push_back(words_of_b(k, layer));
            if (job.grad_x) encoded.push_back(std::make_unique<Encoded>(k, *layer.weights, size_t(job.T)));
            first_lane.push_back(lane), lane += padded_rank(layer.rank);
        }
    }
    Lines gradient_of_low() const { return {grad_low.get(), size_t(lanes), job.x.bf16}; }

    // The gradient of `low`, and all words, of some tokens of one layer
    void gradient_of_low(size_t i, int begin, int end, float* room) const {
        const LoraLayer& layer = job.layers[i];
        const int own = padded_rank(layer.rank), lane = first_lane[i];
        if (job.grad_x) encoded[i]->encode(k, layer.y, layer.out, begin, end, room + low_scratch(layer.out));
        const Lines low = Lines{job.low, size_t(lanes), job.x.bf16}.from(size_t(begin), size_t(lane));
        const Lines grad = gradient_of_low().from(size_t(begin), size_t(lane));
        const std::vector<float> scales(size_t(own), layer.scale);
        k.lora_low({layer.y.from(size_t(begin), 0), end - begin, layer.out, own, words_b[i].get(), scales.data(),
                    (void*)grad.data, grad.row, room});
        const size_t at = size_t(begin / S) * lanes + lane;
        k.words_of_lines(low, end - begin, own, low_words.get() + at, lanes);
        k.words_of_lines(grad, end - begin, own, grad_words.get() + at, lanes);
    }
    // The words of A's columns [row, row + width), of all layers below each other: [lanes / S][WIDTH]
    void words_of_a(int row, int width, float* out) const {
        std::fill_n(out, size_t(lanes / S) * WIDTH, 0.0f);
        for (size_t i = 0; i < job.layers.size(); i++) {
            const LoraLayer& layer = job.layers[i];
            k.words_of_lines(layer.a.from(0, size_t(row)), layer.rank, width, out + first_lane[i] / S * WIDTH, WIDTH);
        }
    }
    // Adds to columns [begin, begin + LORA_COLUMNS) of the gradients of all A.
    void add_gradient_a(int begin, const Bench& bench) const {
        const int width = std::min(LORA_COLUMNS, job.in - begin);
        k.lora_gradient(grad_words.get(), lanes, lanes, job.x.from(0, size_t(begin)), job.T, width, bench.words.get(),
                        bench.gradients.get());
        for (size_t i = 0; i < job.layers.size(); i++)
            for (int r = 0; r < job.layers[i].rank; r++)
                k.add(job.layers[i].grad_a + size_t(r) * job.in + begin,
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
    const Backward all(k, job);
    const int layers = int(job.layers.size()), pieces = parts_of(job.T, ENCODED);
    int widest = 0;
    for (const LoraLayer& layer : job.layers) widest = std::max(widest, layer.out);
    const size_t room = low_scratch(widest) + widest;
    const auto rooms = space<float>(room * threads);
    share(layers * pieces, threads, [&](int part, int thread) {
        const int begin = part % pieces * ENCODED;
        all.gradient_of_low(size_t(part / pieces), begin, std::min(job.T, begin + ENCODED),
                            rooms.get() + room * thread);
    });

    Product product{k, {}, {job.grad_x, size_t(job.in), job.x.bf16}, job.T, job.in};
    product.low = all.gradient_of_low(), product.lanes = all.lanes;
    for (int i = 0; job.grad_x && i < layers; i++)
        product.terms.push_back({job.layers[i].weights, all.encoded[i].get()});
    const int products = job.grad_x ? product.parts() : 0;
    std::vector<std::pair<int, int>> gradients;  // (layer, first row) of parts of B's; of A's the layer is -1
    for (int c = 0; c < job.in; c += LORA_COLUMNS) gradients.push_back({-1, c});
    for (int i = 0; i < layers; i++)
        for (int c = 0; c < job.layers[i].out; c += LORA_COLUMNS) gradients.push_back({i, c});
    const std::vector<Bench> bench = benches(threads, padded(widest, GROUP), all.lanes);
    share(products + int(gradients.size()), threads, [&](int part, int thread) {
        const Bench& own = bench[thread];
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
