// Checks of training's products with bfloat16 weights beside plain loops in double.
#include "training/dense.h"

#include "tests/tensors.h"

namespace riyaz::checks {
namespace {

constexpr float BEFORE = 0.5;               // what sums of gradients hold before
constexpr float SCALE = 1.5;                // of LoRAs
constexpr double LOW = 1 + ROUNDED / NEAR;  // worth of a term with a gradient that was rounded to bfloat16

// Layers of one x, with a LoRA each where there are tiles, whose results are columns of one matrix, as are their
// gradients
struct Dense {
    int T, in, rank, width = 0;
    std::vector<int> outs;
    Tensor x, y, grad, grad_x, low;  // low (T, layers * rank)
    std::vector<Tensor> weights, biases, a, b;
    std::vector<Floats> totals, grad_a, grad_b;
    const Kernels& k;

    Dense(const Sets& sets, int T_, int in_, std::vector<int> outs_, int rank_ = 0, bool damaged = false)
        : T(T_),
          in(in_),
          rank(has_tiles(sets.checked) ? rank_ : 0),
          outs(std::move(outs_)),
          x(random_tensor(true, 1, size_t(T) * in, 1, damaged)),
          y(true, 0),
          grad(true, 0),
          grad_x(true, size_t(T) * in),
          low(true, size_t(T) * lanes()),
          k(sets.checked) {
        for (const int out : outs) {
            weights.push_back(random_tensor(true, uint32_t(out), size_t(out) * in));
            biases.push_back(random_tensor(true, uint32_t(out) + 1, size_t(out)));
            a.push_back(random_tensor(true, uint32_t(out) + 3, size_t(in) * rank));
            b.push_back(random_tensor(true, uint32_t(out) + 2, size_t(out) * rank));
            totals.push_back(with_guards(Floats(size_t(out) * in, BEFORE))), width += out;
            grad_a.push_back(with_guards(Floats(size_t(rank) * in, BEFORE)));
            grad_b.push_back(with_guards(Floats(size_t(out) * rank, BEFORE)));
        }
        y = Tensor(true, size_t(T) * width), grad = random_tensor(true, 2, size_t(T) * width, 1, damaged);
    }
    int lanes() const { return int(outs.size()) * rank; }
    // `of` is y or grad; tokens from `first` on
    DenseJob job(Tensor& of, int first, int n) {
        DenseJob job = {};
        job.T = n, job.in = in, job.x = MatrixView{x.data(), size_t(in), true}.from(size_t(first), 0);
        const MatrixView lows = MatrixView{low.data(), size_t(lanes()), true}.from(size_t(first), 0);
        int column = 0;
        for (size_t i = 0; i < outs.size(); i++) {
            const MatrixView lines = MatrixView{of.data(), size_t(width), true}.from(size_t(first), size_t(column));
            const auto* bias = i % 2 ? nullptr : (const uint16_t*)biases[i].data();
            DenseLayer layer = {{weights[i].data(), size_t(in), true}, outs[i], bias, lines, totals[i].data()};
            layer.rank = rank, layer.scale = SCALE, layer.low = lows.from(0, i * size_t(rank));
            layer.a = {a[i].data(), size_t(in), true}, layer.b = {b[i].data(), size_t(rank), true};
            if (rank) layer.grad_a = grad_a[i].data(), layer.grad_b = grad_b[i].data();
            job.layers.push_back(layer);
            column += outs[i];
        }
        return job;
    }
    void forward(int threads) { dense_forward(k, job(y, 0, T), threads); }
    void backward(int threads) {
        DenseJob all = job(grad, 0, T);
        all.grad_x = {grad_x.data(), size_t(in), true};
        dense_backward(k, all, threads);
    }
    float low_of(int t, size_t layer, int r) const { return low[size_t(t) * lanes() + layer * size_t(rank) + r]; }
    double low_error() const {
        Sums wanted(size_t(T) * lanes());
        for (size_t i = 0; i < outs.size(); i++)
            for (int t = 0; t < T; t++)
                for (int r = 0; r < rank; r++)
                    for (int c = 0; c < in; c++)
                        wanted[size_t(t) * lanes() + i * size_t(rank) + r].add(double(SCALE) * x[size_t(t) * in + c] *
                                                                               a[i][size_t(r) * in + c]);
        return low.error_from(wanted);
    }
    double forward_error() const {
        Sums wanted(size_t(T) * width);
        int column = 0;
        for (size_t i = 0; i < outs.size(); column += outs[i++])
            for (int t = 0; t < T; t++)
                for (int r = 0; r < outs[i]; r++) {
                    Sum& sum = wanted[size_t(t) * width + column + r];
                    sum.add(i % 2 ? 0 : biases[i][size_t(r)]);
                    for (int c = 0; c < in; c++)
                        sum.add(double(x[size_t(t) * in + c]) * weights[i][size_t(r) * in + c]);
                    for (int l = 0; l < rank; l++) sum.add(double(low_of(t, i, l)) * b[i][size_t(r) * rank + l]);
                }
        return std::max(low_error(), y.error_from(wanted));
    }
    // The gradient of `low` of one token, layer and rank
    double grad_low(int t, size_t layer, int r, int column) const {
        double sum = 0;
        for (int o = 0; o < outs[layer]; o++)
            sum += double(SCALE) * grad[size_t(t) * width + column + o] * b[layer][size_t(o) * rank + r];
        return sum;
    }
    // Of the sums that a layer's LoRA has; adds its part to the gradient of x.
    double lora_error(size_t i, int column, Sums& wanted_x) const {
        Sums wanted_a(size_t(rank) * in), wanted_b(size_t(outs[i]) * rank);
        for (Sums* all : {&wanted_a, &wanted_b})
            for (Sum& sum : *all) sum.add(BEFORE);
        for (int t = 0; t < T; t++)
            for (int r = 0; r < rank; r++) {
                const double own = grad_low(t, i, r, column);
                for (int c = 0; c < in; c++) {
                    wanted_x[size_t(t) * in + c].add(own * a[i][size_t(r) * in + c], LOW);
                    wanted_a[size_t(r) * in + c].add(own * x[size_t(t) * in + c], LOW);
                }
                for (int o = 0; o < outs[i]; o++)
                    wanted_b[size_t(o) * rank + r].add(double(grad[size_t(t) * width + column + o]) * low_of(t, i, r));
            }
        return std::max(error_of(grad_a[i], wanted_a), error_of(grad_b[i], wanted_b));
    }
    static double error_of(const Floats& sums, const Sums& wanted) {
        double worst = guarded(sums);
        for (size_t j = 0; j < wanted.size(); j++)
            worst = std::max(worst, error(sums[j], wanted[j].value, NEAR * wanted[j].size));
        return worst;
    }
    double backward_error() const {
        Sums wanted_x(size_t(T) * in);
        double worst = 0;
        int column = 0;
        for (size_t i = 0; i < outs.size(); column += outs[i++]) {
            Sums wanted(size_t(outs[i]) * in);
            for (Sum& sum : wanted) sum.add(BEFORE);
            for (int t = 0; t < T; t++)
                for (int r = 0; r < outs[i]; r++)
                    for (int c = 0; c < in; c++) {
                        const double own = grad[size_t(t) * width + column + r];
                        wanted_x[size_t(t) * in + c].add(own * weights[i][size_t(r) * in + c]);
                        wanted[size_t(r) * in + c].add(own * x[size_t(t) * in + c]);
                    }
            worst = std::max({worst, error_of(totals[i], wanted), lora_error(i, column, wanted_x)});
        }
        return std::max(worst, grad_x.error_from(wanted_x));
    }
};

double dense_check(const Sets& k) {
    if (!has_dense(k.checked)) return must(!k.checked.dense_lines && !has_tiles(k.checked));
    struct Case {
        int T, in;
        std::vector<int> outs;
        int rank = 0;
    };
    double worst = 0;
    for (const Case& each :
         {Case{1, 2, {2}}, Case{13, 100, {38, 6}, 2}, Case{31, 96, {64, 32, 130}, 8}, Case{195, 34, {96}},
          Case{1042, 66, {54, 16}}, Case{37, 2084, {20}, 4}, Case{290, 128, {288, 160}, 40},
          Case{1042, 2, {1056}}}) {  // the last one's results are larger than the cache
        Dense one(k, each.T, each.in, each.outs, each.rank), two = one, apart = one;
        one.forward(1), two.forward(2);
        worst = std::max({worst, one.forward_error(), must(one.y.is_same(two.y, 0, one.y.size()))});
        for (int t = 0; t < each.T; t += 7)  // a token's result does not depend on others
            dense_forward(k.checked, apart.job(apart.y, t, std::min(7, each.T - t)), 1);
        worst = std::max(worst, must(one.y.is_same(apart.y, 0, one.y.size())));
        one.backward(1), two.backward(2);
        worst = std::max({worst, one.backward_error(), must(one.grad_x.is_same(two.grad_x, 0, one.grad_x.size()))});
        for (size_t i = 0; i < each.outs.size(); i++)
            worst = std::max({worst, same(one.totals[i], two.totals[i]), same(one.grad_a[i], two.grad_a[i]),
                              same(one.grad_b[i], two.grad_b[i])});
        DenseJob frozen = apart.job(apart.grad, 0, each.T);  // the first layer is, and x has no gradient
        const Floats before = apart.totals[0];
        frozen.layers[0].total = nullptr;
        dense_backward(k.checked, frozen, 1);
        worst = std::max(worst, same(apart.totals[0], before));
        worst = std::max(worst, same(apart.totals.back(), (each.outs.size() > 1 ? one.totals.back() : before)));
    }
    return worst;
}

// A NaN in the middle of x or of a gradient stands in all that is made from it, and in nothing else.
double dense_damage_check(const Sets& k) {
    if (!has_dense(k.checked)) return 0;
    Dense one(k, 9, 34, {38, 6}, 0, true);
    one.forward(1), one.backward(1);
    const int of_x = 9 * 34 / 2, of_grad = 9 * 44 / 2;
    double worst = 0;
    for (int i = 0; i < 9 * 44; i++) worst = std::max(worst, must(std::isnan(one.y[i]) == (i / 44 == of_x / 34)));
    for (int i = 0; i < 9 * 34; i++)
        worst = std::max(worst, must(std::isnan(one.grad_x[i]) == (i / 34 == of_grad / 44)));
    for (int i = 0; i < 38 * 34; i++) {
        const bool damaged = i % 34 == of_x % 34 || i / 34 == of_grad % 44;
        worst = std::max(worst, must(std::isnan(one.totals[0][i]) == damaged));
    }
    return worst;
}

}  // namespace

const std::vector<Check> training_dense = {
    {"training dense", dense_check},
    {"training dense NaN", dense_damage_check},
};

}  // namespace riyaz::checks
