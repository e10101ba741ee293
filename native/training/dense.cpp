#include "training/dense.h"

#include "training/memory.h"
#include "training/team.h"
#include "training/tiles.h"

namespace riyaz {
namespace {

constexpr int TOKENS = 192;   // a task's
constexpr int PACKED = 32;    // tokens whose words one task makes
constexpr int SUMMED = 1024;  // tokens of which a gradient of weights is summed in registers

// Columns [begin, begin + width) of layer `layer`
struct Strip {
    int layer, begin, width;
};

std::vector<Strip> strips_of(const std::vector<DenseLayer>& layers, int each) {
    std::vector<Strip> strips;
    for (int i = 0; i < int(layers.size()); i++)
        for (int begin = 0; begin < layers[i].out; begin += each)
            strips.push_back({i, begin, std::min(each, layers[i].out - begin)});
    return strips;
}

// Calls work(strip, first token, end) for all strips of all tokens.
template <class Work>
void for_tokens(int T, int strips, int threads, const Work& work) {
    share(parts_of(T, TOKENS) * strips, threads, [&](int part, int) {
        const int first = part / strips * TOKENS;
        work(part % strips, first, std::min(T, first + TOKENS));
    });
}

// y (T, depth), times w (depth, ..)
struct Factor {
    MatrixView y, w;
    int depth;
};

void gradient_of_x(const Kernels& k, const DenseJob& job, int threads) {
    std::vector<Factor> factors;
    for (const DenseLayer& layer : job.layers) factors.push_back({layer.y, layer.w, layer.out});
    const int strips = parts_of(job.in, DENSE_STRIP), count = int(factors.size());
    std::vector<size_t> first;  // word of each factor
    size_t size = 0;            // words of a strip
    for (const Factor& factor : factors) first.push_back(size), size += size_t(factor.depth / 2) * DENSE_STRIP;
    const Space<float> words = space<float>(size * strips);
    share(strips * count, threads, [&](int part, int) {
        const int strip = part / count, i = part % count, begin = strip * DENSE_STRIP;
        k.words_of_lines(factors[i].w.from(0, size_t(begin)), factors[i].depth, std::min(DENSE_STRIP, job.in - begin),
                         words.get() + size * strip + first[i], DENSE_STRIP);
    });
    for_tokens(job.T, strips, threads, [&](int strip, int t, int end) {
        std::vector<DenseTerm> terms;
        for (int i = 0; i < count; i++)
            terms.push_back(
                {factors[i].y.from(size_t(t), 0), words.get() + size * strip + first[i], factors[i].depth / 2});
        const int begin = strip * DENSE_STRIP;
        k.dense_lines(terms.data(), count, end - t, std::min(DENSE_STRIP, job.in - begin), nullptr,
                      job.grad_x.from(size_t(t), size_t(begin)));
    });
}

// Adds to the sums of all weights, some tokens after the others.
void gradient_of_weights(const Kernels& k, const DenseJob& job, int threads) {
    const std::vector<Strip> rows = strips_of(job.layers, DENSE_ROWS);
    const int strips = parts_of(job.in, DENSE_STRIP), all = int(rows.size());
    // words of a strip; not a power of 2, whose multiples share the cache's lines
    const size_t of_x = size_t(SUMMED / 2 + 1) * DENSE_STRIP, of_rows = size_t(SUMMED / 2 + 1) * DENSE_ROWS;
    std::vector<size_t> first_strip;  // of each layer
    for (size_t i = 0, before = 0; i < job.layers.size(); i++)
        first_strip.push_back(before), before += size_t(parts_of(job.layers[i].out, DENSE_ROWS));
    const Space<float> x = space<float>(of_x * strips), grads = space<float>(of_rows * all);
    for (int t = 0; t < job.T; t += SUMMED) {
        const int n = std::min(SUMMED, job.T - t);
        share(parts_of(n, PACKED), threads, [&](int part, int) {
            const int first = part * PACKED, count = std::min(PACKED, n - first);
            const size_t line = size_t(t + first), pair = size_t(first / 2);
            k.words_in_strips(job.x.from(line, 0), count, job.in, DENSE_STRIP, x.get() + pair * DENSE_STRIP, of_x);
            for (size_t i = 0; i < job.layers.size(); i++)
                if (const DenseLayer& layer = job.layers[i]; layer.total)
                    k.words_in_strips(layer.y.from(line, 0), count, layer.out, DENSE_ROWS,
                                      grads.get() + of_rows * first_strip[i] + pair * DENSE_ROWS, of_rows);
        });
        share(all * strips, threads, [&](int part, int) {
            const Strip& own = rows[part / strips];
            const int strip = part % strips, begin = strip * DENSE_STRIP;
            float* total = job.layers[own.layer].total;
            if (!total) return;
            k.dense_gradient(grads.get() + of_rows * (part / strips), own.width, x.get() + of_x * strip, (n + 1) / 2,
                             std::min(DENSE_STRIP, job.in - begin), total + size_t(own.begin) * job.in + begin,
                             size_t(job.in));
        });
    }
}

}  // namespace

void dense_forward(const Kernels& k, const DenseJob& job, int threads) {
    if (k.tile_lines) return tiles_forward(k, job, threads);
    const std::vector<Strip> strips = strips_of(job.layers, DENSE_STRIP);
    const size_t size = size_t(job.in / 2) * DENSE_STRIP;  // of a strip
    const Space<float> words = space<float>(size * strips.size());
    share(int(strips.size()), threads, [&](int part, int) {
        const Strip& own = strips[part];
        k.turned_words(job.layers[own.layer].w.from(size_t(own.begin), 0), own.width, job.in / 2,
                       words.get() + size * part, DENSE_STRIP);
    });
    for_tokens(job.T, int(strips.size()), threads, [&](int strip, int t, int end) {
        const Strip& own = strips[strip];
        const DenseLayer& layer = job.layers[own.layer];
        const DenseTerm term = {job.x.from(size_t(t), 0), words.get() + size * strip, job.in / 2};
        k.dense_lines(&term, 1, end - t, own.width, layer.bias ? layer.bias + own.begin : nullptr,
                      layer.y.from(size_t(t), size_t(own.begin)));
    });
}

void dense_backward(const Kernels& k, const DenseJob& job, int threads) {
    if (k.tile_lines) return tiles_backward(k, job, threads);
    if (job.grad_x.data) gradient_of_x(k, job, threads);
    const auto trains = [](const DenseLayer& layer) { return layer.total != nullptr; };
    if (std::any_of(job.layers.begin(), job.layers.end(), trains)) gradient_of_weights(k, job, threads);
}

}  // namespace riyaz
