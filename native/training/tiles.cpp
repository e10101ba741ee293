#include "training/tiles.h"

#include <cstring>

#include "training/memory.h"
#include "training/team.h"

namespace riyaz {
namespace {

constexpr int MOST_STEPS = 64;             // strips over which is summed before panels of the next ones are made
constexpr size_t GROUP_BYTES = 512 << 10;  // of panels, which stay in the second cache
constexpr size_t CHUNK_BYTES = 384 << 10;  // of strips of lines, which stay there with them
constexpr int SUMMED = 1024;               // tokens over which a gradient of weights is summed in tiles
constexpr int PAIR = 2 * TILE_PANEL;       // columns of two panels

int steps_of(int numbers) { return parts_of(numbers, TILE_STRIP); }
int whole_steps(int lines) { return steps_of(lines) * TILE_STRIP; }

// x (T, depth) w, whose lines are summed over; or, `turned`, x wᵀ
struct TileTerm {
    MatrixView x, w;
    bool turned;
    int depth;
    int first;  // strip of x
};

// The sum of all terms, and a bias or null, in y (T, width)
struct TileProduct {
    std::vector<TileTerm> terms;
    int width;
    const uint16_t* bias;
    MatrixView y;

    int steps() const {
        int sum = 0;
        for (const TileTerm& term : terms) sum += steps_of(term.depth);
        return sum;
    }
};

// Copies lines of m to strips [..][lines][32], with zeros behind the last column and up to a multiple of 32 lines.
void to_strips(const MatrixView& m, int lines, int width, uint16_t* out, size_t strip) {
    for (int c = 0; c < width; c += TILE_STRIP, out += strip) {
        const auto* from = (const uint16_t*)m.data + c;
        const int n = std::min(TILE_STRIP, width - c);
        uint16_t* to = out;
        for (int l = 0; l < lines; l++, from += m.row, to += TILE_STRIP) {
            if (n == TILE_STRIP) {
                std::memcpy(to, from, TILE_STRIP * 2);
            } else {
                std::memcpy(to, from, size_t(n) * 2);
                std::memset(to + n, 0, size_t(TILE_STRIP - n) * 2);
            }
        }
        std::memset(to, 0, size_t(whole_steps(lines) - lines) * TILE_STRIP * 2);
    }
}

// The strips of a matrix of T lines
struct TileStrips {
    Space<uint16_t> numbers;
    size_t each;  // numbers

    TileStrips(int T, int count)
        : numbers(space<uint16_t>(size_t(count) * whole_steps(T) * TILE_STRIP)),
          each(size_t(whole_steps(T)) * TILE_STRIP) {}
    uint16_t* at(int strip, int line = 0) const {
        return numbers.get() + size_t(strip) * each + size_t(line) * TILE_STRIP;
    }
};

// The panel of the product's 16 columns from `column` on, for its strips [begin, end)
void make_panel(const Kernels& k, const TileProduct& product, int column, int begin, int end, uint16_t* panel) {
    const int width = std::min(TILE_PANEL, product.width - column);
    int first = 0;  // strip of each term
    for (const TileTerm& term : product.terms) {
        const int from = std::max(begin, first) - first, to = std::min(end - first, steps_of(term.depth));
        first += steps_of(term.depth);
        if (from >= to) continue;
        const int line = from * TILE_STRIP, lines = std::min(to * TILE_STRIP, term.depth) - line;
        if (term.turned)
            k.turned_words(term.w.from(size_t(column), size_t(line)), width, lines / 2, (float*)panel, TILE_PANEL);
        else
            k.words_in_strips(term.w.from(size_t(line), size_t(column)), lines, width, TILE_PANEL, (float*)panel, 0);
        uint16_t* after = panel + size_t(to - from) * PANEL_STEP;
        uint16_t* written = panel + size_t(parts_of(lines, 2)) * 2 * TILE_PANEL;
        std::memset(written, 0, size_t(after - written) * 2);
        panel = after;
    }
}

// Some columns of a product: those of `width` from `column` on
struct ColumnGroup {
    const TileProduct* product;
    int column, width;
};

void multiply(const Kernels& k, const ColumnGroup& group, const TileStrips& strips, int T, uint16_t* panels,
              float* sums) {
    const TileProduct& product = *group.product;
    const int steps = product.steps(), parts = parts_of(steps, MOST_STEPS), each = parts_of(steps, parts);
    const int chunk = std::max(1, int(CHUNK_BYTES / (size_t(each) * TILE_STRIP * TILE_STRIP * 2))) * TILE_STRIP;
    for (int begin = 0; begin < steps; begin += each) {
        const int end = std::min(begin + each, steps);
        const size_t panel = size_t(end - begin) * PANEL_STEP;
        for (int c = 0; c < group.width; c += TILE_PANEL)
            make_panel(k, product, group.column + c, begin, end, panels + size_t(c / TILE_PANEL) * panel);
        for (int t = 0; t < T; t += chunk) {
            std::vector<TileRun> runs;
            int first = 0;
            for (const TileTerm& term : product.terms) {
                const int from = std::max(begin, first) - first, to = std::min(end - first, steps_of(term.depth));
                if (from < to) runs.push_back({strips.at(term.first + from, t), to - from});
                first += steps_of(term.depth);
            }
            const TileJob job = {runs.data(), int(runs.size()), strips.each, std::min(chunk, T - t), panels,
                                 panel,       group.width};
            k.tile_lines(job, sums + size_t(t) * whole_steps(group.width), begin == 0, end == steps,
                         product.bias ? product.bias + group.column : nullptr,
                         product.y.from(size_t(t), size_t(group.column)));
        }
    }
}

// Makes `count` strips of the terms' x and from these all products.
void multiply_all(const Kernels& k, const std::vector<TileProduct>& products, int count, int T, int threads) {
    const TileStrips strips(T, count);
    share(steps_of(T), threads, [&](int part, int) {
        const int t = part * TILE_STRIP, n = std::min(TILE_STRIP, T - t);
        int made = 0;  // strips; terms that share an x name the same ones
        for (const TileProduct& product : products)
            for (const TileTerm& term : product.terms) {
                if (term.first < made) continue;
                to_strips(term.x.from(size_t(t), 0), n, term.depth, strips.at(term.first, t), strips.each);
                made = term.first + steps_of(term.depth);
            }
    });
    std::vector<ColumnGroup> groups;
    size_t most_panels = 0;
    int widest = 0;
    for (const TileProduct& product : products) {
        const int steps = std::min(product.steps(), MOST_STEPS);
        const size_t pair = size_t(steps) * 2 * PANEL_STEP;
        const int width = std::clamp(int(GROUP_BYTES / (pair * 2)), 1, 4) * PAIR;
        for (int c = 0; c < product.width; c += width)
            groups.push_back({&product, c, std::min(width, product.width - c)});
        most_panels = std::max(most_panels, pair * size_t(width / PAIR)), widest = std::max(widest, width);
    }
    const size_t most_sums = size_t(whole_steps(T)) * widest;
    const Space<uint16_t> panels = space<uint16_t>(most_panels * threads);
    const Space<float> sums = space<float>(most_sums * threads);
    share(int(groups.size()), threads, [&](int part, int thread) {
        multiply(k, groups[part], strips, T, panels.get() + most_panels * thread, sums.get() + most_sums * thread);
    });
}

void gradient_of_x(const Kernels& k, const DenseJob& job, int threads) {
    TileProduct product = {{}, job.in, nullptr, job.grad_x};
    int strips = 0;
    const auto add = [&](const MatrixView& x, const MatrixView& w, int depth) {
        product.terms.push_back({x, w, false, depth, strips}), strips += steps_of(depth);
    };
    for (const DenseLayer& layer : job.layers) add(layer.y, layer.w, layer.out);
    if (job.rank) add(job.low, job.a, job.rank);
    multiply_all(k, {product}, strips, job.T, threads);
}

// Adds to the sums of all weights, some tokens after the others.
void gradient_of_weights(const Kernels& k, const DenseJob& job, int threads) {
    const int most = steps_of(std::min(job.T, SUMMED)), panels = parts_of(job.in, TILE_PANEL);
    const size_t panel = size_t(most) * PANEL_STEP;
    const Space<uint16_t> x = space<uint16_t>(panel * panels);
    std::vector<TileStrips> strips;  // of the gradient of each layer's y, turned
    for (const DenseLayer& layer : job.layers) strips.emplace_back(layer.out, layer.total ? most : 0);
    for (int t = 0; t < job.T; t += SUMMED) {
        const int n = std::min(SUMMED, job.T - t), steps = steps_of(n);
        share(steps, threads, [&](int part, int) {
            const int first = part * TILE_STRIP, count = std::min(TILE_STRIP, n - first);
            const size_t line = size_t(t + first);
            uint16_t* words = x.get() + size_t(part) * PANEL_STEP;
            k.words_in_strips(job.x.from(line, 0), count, job.in, TILE_PANEL, (float*)words, panel / 2);
            const size_t written = size_t(parts_of(count, 2)) * 2 * TILE_PANEL;
            for (int i = 0; written < PANEL_STEP && i < panels; i++)
                std::memset(words + size_t(i) * panel + written, 0, (PANEL_STEP - written) * 2);
            for (size_t i = 0; i < job.layers.size(); i++) {
                const DenseLayer& layer = job.layers[i];
                if (!layer.total) continue;
                k.strips_of_columns(layer.y.from(line, 0), count, layer.out, strips[i].at(part), 0);
                const int beyond = whole_steps(layer.out) - layer.out;
                std::memset(strips[i].at(part, layer.out), 0, size_t(beyond) * TILE_STRIP * 2);
            }
        });
        const int pairs = parts_of(job.in, PAIR), layers = int(job.layers.size());
        share(pairs * layers, threads, [&](int part, int) {
            const int i = part / pairs, column = part % pairs * PAIR;
            const DenseLayer& layer = job.layers[size_t(i)];
            if (!layer.total) return;
            const TileRun run = {strips[size_t(i)].at(0), steps};
            k.tile_sums({&run, 1, strips[size_t(i)].each, layer.out, x.get() + size_t(column / TILE_PANEL) * panel,
                         panel, std::min(PAIR, job.in - column)},
                        layer.total + column, size_t(job.in));
        });
    }
}

}  // namespace

void tiles_forward(const Kernels& k, const DenseJob& job, int threads) {
    std::vector<TileProduct> products;
    int strips = steps_of(job.in);
    for (const DenseLayer& layer : job.layers) {
        products.push_back({{{job.x, layer.w, true, job.in, 0}}, layer.out, layer.bias, layer.y});
        if (!layer.rank) continue;
        products.back().terms.push_back({layer.low, layer.b, true, layer.rank, strips});
        strips += steps_of(layer.rank);
    }
    multiply_all(k, products, strips, job.T, threads);
}

void tiles_backward(const Kernels& k, const DenseJob& job, int threads) {
    if (job.grad_x.data) gradient_of_x(k, job, threads);
    const auto trains = [](const DenseLayer& layer) { return layer.total != nullptr; };
    if (std::any_of(job.layers.begin(), job.layers.end(), trains)) gradient_of_weights(k, job, threads);
}

}  // namespace riyaz
