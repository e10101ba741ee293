// Gradients of weights and of LoRAs on AMX's tiles.
#include <cstring>

#include "training/team.h"
#include "training/tile_strips.h"

namespace riyaz {
namespace {

constexpr int SUMMED = 1024;  // tokens over which a gradient of weights is summed in tiles
constexpr int LINES = 256;    // of that gradient, which one task computes
constexpr int WIDE = 128;     // columns of a LoRA's gradient, which one task computes
constexpr int LAID = 8;       // steps of which it lays out that many columns at a time

// Lays `count` lines of m in a step of panels, with zeros behind them.
void lay_panels(const Kernels& k, const MatrixView& m, int count, int width, uint16_t* to, size_t panel) {
    k.words_in_strips(m, count, width, TILE_PANEL, (float*)to, panel / 2);
    const size_t written = size_t(parts_of(count, 2)) * 2 * TILE_PANEL;
    if (written == PANEL_STEP) return;
    for (int c = 0; c < width; c += TILE_PANEL, to += panel) std::memset(to + written, 0, (PANEL_STEP - written) * 2);
}

// Lays `count` lines of m turned in a step of strips, with zeros behind them and its columns.
void lay_strips(const Kernels& k, const MatrixView& m, int count, int width, uint16_t* to) {
    k.strips_of_columns(m, count, width, to, 0);
    std::memset(to + size_t(width) * TILE_STRIP, 0, size_t(whole_steps(width) - width) * TILE_STRIP * 2);
}

// A gradient of a LoRA: lowᵀ wide, or `turned`, of a `low` (T, rank)
struct ThinGradient {
    MatrixView low;
    int rank;
    float* total;  // (rank, width), or turned (width, rank)
    bool turned;
    TileStrips strips;  // of low, turned
};

// All gradients of one wide matrix
struct WideLines {
    MatrixView m;  // (T, width)
    int width;
    std::vector<ThinGradient> thin;
};

// Adds the gradients of some columns, whose lines are laid out a few at a time in `panels`.
void add_columns(const Kernels& k, const WideLines& wide, int T, int column, uint16_t* panels, float* sums) {
    const int width = std::min(WIDE, wide.width - column);
    const size_t panel = size_t(LAID) * PANEL_STEP;
    for (int t = 0; t < T; t += LAID * TILE_STRIP) {
        const int steps = std::min(LAID, steps_of(T - t));
        for (int step = 0; step < steps; step++) {
            const int line = t + step * TILE_STRIP;
            lay_panels(k, wide.m.from(size_t(line), size_t(column)), std::min(TILE_STRIP, T - line), width,
                       panels + size_t(step) * PANEL_STEP, panel);
        }
        float* own = sums;
        for (const ThinGradient& thin : wide.thin) {
            if (t == 0) std::fill_n(own, size_t(thin.rank) * WIDE, 0.0f);
            const TileRun run = {thin.strips.at(t / TILE_STRIP), steps, TILE_STRIP, thin.strips.each};
            k.tile_sums({&run, 1, thin.rank, panels, panel, width}, own, WIDE);
            own += size_t(thin.rank) * WIDE;
        }
    }
    for (const ThinGradient& thin : wide.thin)
        for (int r = 0; r < thin.rank; r++, sums += WIDE)
            for (int c = 0; c < width; c++)
                thin.total[thin.turned ? size_t(column + c) * thin.rank + r : size_t(r) * wide.width + column + c] +=
                    sums[c];
}

}  // namespace

// yᵀ x of some tokens after the others
void add_gradients_of_w(const Kernels& k, const DenseJob& job, int threads) {
    const int most = steps_of(std::min(job.T, SUMMED)), pairs = parts_of(job.in, PAIR);
    const size_t panel = size_t(most) * PANEL_STEP;
    const int each = std::max(1, std::min(pairs, int(GROUP_BYTES / (panel * 4)))) * PAIR;  // columns of a task
    struct Task {
        const DenseLayer* layer;
        const TileStrips* y;
        int line, column;
    };
    std::vector<TileStrips> strips;  // of the gradient of each layer's y, turned
    for (const DenseLayer& layer : job.layers) strips.emplace_back(layer.out, layer.total ? most : 0);
    std::vector<Task> tasks;
    for (size_t i = 0; i < strips.size(); i++)
        for (int line = 0; job.layers[i].total && line < job.layers[i].out; line += LINES)
            for (int c = 0; c < job.in; c += each) tasks.push_back({&job.layers[i], &strips[i], line, c});
    if (tasks.empty()) return;
    const Space<uint16_t> x = space<uint16_t>(panel * 2 * pairs);
    for (int t = 0; t < job.T; t += SUMMED) {
        const int n = std::min(SUMMED, job.T - t), steps = steps_of(n);
        share(steps, threads, [&](int step, int) {
            const int count = std::min(TILE_STRIP, n - step * TILE_STRIP);
            const size_t line = size_t(t + step * TILE_STRIP);
            lay_panels(k, job.x.from(line, 0), count, job.in, x.get() + size_t(step) * PANEL_STEP, panel);
            for (size_t i = 0; i < strips.size(); i++)
                if (const DenseLayer& layer = job.layers[i]; layer.total)
                    lay_strips(k, layer.y.from(line, 0), count, layer.out, strips[i].at(step));
        });
        share(int(tasks.size()), threads, [&](int part, int) {
            const auto& [layer, y, line, column] = tasks[size_t(part)];
            const TileRun run = {y->at(0, line), steps, TILE_STRIP, y->each};
            k.tile_sums({&run, 1, std::min(LINES, layer->out - line), x.get() + size_t(column / TILE_PANEL) * panel,
                         panel, std::min(each, job.in - column)},
                        layer->total + size_t(line) * job.in + column, size_t(job.in));
        });
    }
}

void add_gradients_of_loras(const Kernels& k, const DenseJob& job, const std::vector<MatrixView>& low, int threads) {
    const int steps = steps_of(job.T);
    std::vector<WideLines> all;
    all.push_back({job.x, job.in, {}});
    for (size_t i = 0; i < job.layers.size(); i++) {
        const DenseLayer& layer = job.layers[i];
        if (layer.grad_a)
            all[0].thin.push_back({low[i], layer.rank, layer.grad_a, false, TileStrips(layer.rank, steps)});
        if (!layer.grad_b) continue;
        all.push_back({layer.y, layer.out, {}});
        all.back().thin.push_back({layer.low, layer.rank, layer.grad_b, true, TileStrips(layer.rank, steps)});
    }
    std::vector<std::pair<const WideLines*, int>> tasks;  // and the column
    int most = 0;                                         // ranks of one wide matrix
    for (const WideLines& wide : all) {
        int ranks = 0;
        for (const ThinGradient& thin : wide.thin) ranks += thin.rank;
        for (int c = 0; ranks && c < wide.width; c += WIDE) tasks.push_back({&wide, c});
        most = std::max(most, ranks);
    }
    if (tasks.empty()) return;
    share(steps, threads, [&](int step, int) {
        const int line = step * TILE_STRIP, count = std::min(TILE_STRIP, job.T - line);
        for (const WideLines& wide : all)
            for (const ThinGradient& thin : wide.thin)
                lay_strips(k, thin.low.from(size_t(line), 0), count, thin.rank, thin.strips.at(step));
    });
    const size_t of_panels = size_t(LAID) * PANEL_STEP * (WIDE / TILE_PANEL), of_sums = size_t(most) * WIDE;
    const Space<uint16_t> panels = space<uint16_t>(of_panels * threads);
    const Space<float> sums = space<float>(of_sums * threads);
    share(int(tasks.size()), threads, [&](int part, int thread) {
        const auto& [wide, column] = tasks[size_t(part)];
        add_columns(k, *wide, job.T, column, panels.get() + of_panels * thread, sums.get() + of_sums * thread);
    });
}

}  // namespace riyaz
