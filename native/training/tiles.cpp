#include "training/tiles.h"

#include <cstring>

#include "training/team.h"
#include "training/tile_strips.h"

namespace riyaz {
namespace {

constexpr int MOST_STEPS = 64;             // strips over which is summed before panels of the next ones are made
constexpr size_t CHUNK_BYTES = 384 << 10;  // of strips of lines, which stay there with them
constexpr size_t LARGE_BYTES = 2 << 20;    // of results, more than the second cache holds
constexpr int MOST_PAIRS = 9;              // of which one task computes the columns

// x (T, depth) w, whose lines are summed over; or, `turned`, x wᵀ
struct TileTerm {
    MatrixView x, w;
    bool turned;
    int depth;
    int first;   // strip of x, of those of the products' different x
    int copied;  // the same of those that are copied; -1 where tiles are loaded from x itself
};

// The sum of all terms times `scale`, and a bias or null, in y (T, width)
struct TileProduct {
    std::vector<TileTerm> terms;
    int width;
    const uint16_t* bias;
    MatrixView y;
    float scale = 1;

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

// The panels of `width` columns of the product from `column` on, for its strips [begin, end)
void make_panels(const Kernels& k, const TileProduct& product, int column, int width, int begin, int end,
                 uint16_t* panels) {
    const size_t panel = size_t(end - begin) * PANEL_STEP;
    int first = 0;  // strip of each term
    for (const TileTerm& term : product.terms) {
        const int from = std::max(begin, first) - first, to = std::min(end - first, steps_of(term.depth));
        first += steps_of(term.depth);
        if (from >= to) continue;
        const int line = from * TILE_STRIP, lines = std::min(to * TILE_STRIP, term.depth) - line;
        if (!term.turned)
            k.words_in_strips(term.w.from(size_t(line), size_t(column)), lines, width, TILE_PANEL, (float*)panels,
                              panel / 2);
        const size_t written = size_t(parts_of(lines, 2)) * 2 * TILE_PANEL, all = size_t(to - from) * PANEL_STEP;
        for (int c = 0; c < width; c += TILE_PANEL) {
            uint16_t* own = panels + size_t(c / TILE_PANEL) * panel;
            if (term.turned)
                k.turned_words(term.w.from(size_t(column + c), size_t(line)), std::min(TILE_PANEL, width - c),
                               lines / 2, (float*)own, TILE_PANEL);
            std::memset(own + written, 0, (all - written) * 2);
        }
        panels += all;
    }
}

// Some columns of a product: those of `width` from `column` on, for the tokens [begin, end)
struct TileTask {
    const TileProduct* product;
    int column, width, begin, end;
    bool large;  // the results of all tasks
};

// The lines of all x as tiles are loaded from: x itself, or copies in strips of those that are not made of whole strips
// or whose lines share lines of the cache, and of the last lines, where they are no whole tiles.
struct TileInputs {
    int whole;  // lines in whole tiles
    TileStrips copies, last;

    TileInputs(int T, int count, int copied)
        : whole(T / TILE_STRIP * TILE_STRIP), copies(whole, copied), last(T - whole, count) {}

    void copy(const TileTerm& term, int T, int line) const {
        const int lines = std::min(TILE_STRIP, T - line);
        if (lines < TILE_STRIP)
            to_strips(term.x.from(size_t(line), 0), lines, term.depth, last.at(term.first), last.each);
        else if (term.copied >= 0)
            to_strips(term.x.from(size_t(line), 0), lines, term.depth, copies.at(term.copied, line), copies.each);
    }
    TileRun run(const TileTerm& term, int line, int strip, int steps) const {
        if (line >= whole) return {last.at(term.first + strip), steps, TILE_STRIP, last.each};
        if (term.copied >= 0) return {copies.at(term.copied + strip, line), steps, TILE_STRIP, copies.each};
        const MatrixView x = term.x.from(size_t(line), size_t(strip) * TILE_STRIP);
        return {(const uint16_t*)x.data, steps, x.row, TILE_STRIP};
    }
};

void multiply(const Kernels& k, const TileTask& task, const TileInputs& inputs, uint16_t* panels, float* sums) {
    const TileProduct& product = *task.product;
    const int steps = product.steps(), parts = parts_of(steps, MOST_STEPS), each = parts_of(steps, parts);
    const int most = std::max(1, int(CHUNK_BYTES / (size_t(each) * TILE_STRIP * TILE_STRIP * 2))) * TILE_STRIP;
    for (int begin = 0; begin < steps; begin += each) {
        const int end = std::min(begin + each, steps);
        make_panels(k, product, task.column, task.width, begin, end, panels);
        for (int t = task.begin, lines; t < task.end; t += lines) {
            lines = std::min(t < inputs.whole ? std::min(most, inputs.whole - t) : most, task.end - t);
            std::vector<TileRun> runs;
            int first = 0;
            for (const TileTerm& term : product.terms) {
                const int from = std::max(begin, first) - first, to = std::min(end - first, steps_of(term.depth));
                if (from < to) runs.push_back(inputs.run(term, t, from, to - from));
                first += steps_of(term.depth);
            }
            const TileJob job = {runs.data(), int(runs.size()), lines,     panels, size_t(end - begin) * PANEL_STEP,
                                 task.width,  product.scale,    task.large};
            k.tile_lines(job, sums + size_t(t - task.begin) * whole_steps(task.width), begin == 0, end == steps,
                         product.bias ? product.bias + task.column : nullptr,
                         product.y.from(size_t(t), size_t(task.column)));
        }
    }
}

// Says which strips each term's x has; terms with the same x share them.
struct TileCount {
    int all = 0, copied = 0;
    const void* before = nullptr;

    TileTerm term(const MatrixView& x, const MatrixView& w, bool turned, int depth) {
        const bool copies = depth % TILE_STRIP || x.row % TILE_STRIP || (uintptr_t)x.data % 64;
        if (x.data != before) all += steps_of(depth), copied += copies ? steps_of(depth) : 0, before = x.data;
        return {x, w, turned, depth, all - steps_of(depth), copies ? copied - steps_of(depth) : -1};
    }
};

// The products' columns in tasks whose panels fit the cache, as many for each thread; of few columns also by tokens.
std::vector<TileTask> tasks_of(const std::vector<TileProduct>& products, int T, int threads) {
    std::vector<TileTask> tasks;
    size_t results = 0;  // bytes
    for (const TileProduct& product : products) results += size_t(T) * product.width * 2;
    const bool large = results > LARGE_BYTES;
    for (const TileProduct& product : products) {
        const size_t pair = size_t(std::min(product.steps(), MOST_STEPS)) * 2 * PANEL_STEP * 2;  // bytes
        const int pairs = parts_of(product.width, PAIR), most = std::clamp(int(GROUP_BYTES / pair), 1, MOST_PAIRS);
        const int count = std::min(pairs, parts_of(parts_of(pairs, most), threads) * threads);
        const int width = parts_of(pairs, count) * PAIR;
        for (int c = 0; c < product.width; c += width)
            tasks.push_back({&product, c, std::min(width, product.width - c), 0, T, large});
    }
    if (threads == 1 || int(tasks.size()) >= threads) return tasks;
    const int each = whole_steps(parts_of(T, parts_of(2 * threads, int(tasks.size()))));
    std::vector<TileTask> split;
    for (const TileTask& task : tasks)
        for (int t = 0; t < T; t += each)
            split.push_back({task.product, task.column, task.width, t, std::min(T, t + each), large});
    return split;
}

// Computes all products of these terms.
void multiply_all(const Kernels& k, const std::vector<TileProduct>& products, const TileCount& count, int T,
                  int threads) {
    const TileInputs inputs(T, count.all, count.copied);
    share(count.copied ? steps_of(T) : 1, threads, [&](int part, int) {
        const int t = count.copied ? part * TILE_STRIP : inputs.whole;
        int made = 0;
        for (const TileProduct& product : products)
            for (const TileTerm& term : product.terms) {
                if (term.first < made || t >= T) continue;
                inputs.copy(term, T, t), made = term.first + steps_of(term.depth);
            }
    });
    const std::vector<TileTask> tasks = tasks_of(products, T, threads);
    size_t most_panels = 0, most_sums = 0;
    for (const TileTask& task : tasks) {
        const int steps = std::min(task.product->steps(), MOST_STEPS);
        most_panels = std::max(most_panels, size_t(parts_of(task.width, TILE_PANEL)) * steps * PANEL_STEP);
        most_sums = std::max(most_sums, size_t(whole_steps(task.end - task.begin)) * whole_steps(task.width));
    }
    const Space<uint16_t> panels = space<uint16_t>(most_panels * threads);
    const Space<float> sums = space<float>(most_sums * threads);
    share(int(tasks.size()), threads, [&](int part, int thread) {
        multiply(k, tasks[part], inputs, panels.get() + most_panels * thread, sums.get() + most_sums * thread);
    });
}

// What backward computes of LoRAs before all else: scale y B, for the gradients y of the layers
struct LowGradients {
    Space<uint16_t> numbers;
    std::vector<MatrixView> of;  // (T, rank), of each layer; without data where it has no LoRA

    LowGradients(const Kernels& k, const DenseJob& job, int threads) {
        int lanes = 0;
        for (const DenseLayer& layer : job.layers) lanes += layer.rank;
        numbers = space<uint16_t>(size_t(job.T) * lanes);
        std::vector<TileProduct> products;
        TileCount count;
        int lane = 0;
        for (const DenseLayer& layer : job.layers) {
            of.push_back({layer.rank ? numbers.get() + lane : nullptr, size_t(lanes), true}), lane += layer.rank;
            if (!layer.rank) continue;
            products.push_back(
                {{count.term(layer.y, layer.b, false, layer.out)}, layer.rank, nullptr, of.back(), layer.scale});
        }
        if (lanes) multiply_all(k, products, count, job.T, threads);
    }
};

void gradient_of_x(const Kernels& k, const DenseJob& job, const LowGradients& low, int threads) {
    TileProduct product = {{}, job.in, nullptr, job.grad_x};
    TileCount count;
    for (size_t i = 0; i < job.layers.size(); i++) {
        const DenseLayer& layer = job.layers[i];
        product.terms.push_back(count.term(layer.y, layer.w, false, layer.out));
        if (layer.rank) product.terms.push_back(count.term(low.of[i], layer.a, false, layer.rank));
    }
    multiply_all(k, {product}, count, job.T, threads);
}

}  // namespace

void tiles_forward(const Kernels& k, const DenseJob& job, int threads) {
    std::vector<TileProduct> lows, products;
    TileCount count, count_low;
    for (const DenseLayer& layer : job.layers) {
        products.push_back({{count.term(job.x, layer.w, true, job.in)}, layer.out, layer.bias, layer.y});
        if (layer.rank)
            lows.push_back(
                {{count_low.term(job.x, layer.a, true, job.in)}, layer.rank, nullptr, layer.low, layer.scale});
    }
    for (size_t i = 0; i < products.size(); i++)
        if (const DenseLayer& layer = job.layers[i]; layer.rank)
            products[i].terms.push_back(count.term(layer.low, layer.b, true, layer.rank));
    if (!lows.empty()) multiply_all(k, lows, count_low, job.T, threads);
    multiply_all(k, products, count, job.T, threads);
}

void tiles_backward(const Kernels& k, const DenseJob& job, int threads) {
    const LowGradients low(k, job, threads);
    if (job.grad_x.data) gradient_of_x(k, job, low, threads);
    add_gradients_of_w(k, job, threads);
    add_gradients_of_loras(k, job, low.of, threads);
}

}  // namespace riyaz
