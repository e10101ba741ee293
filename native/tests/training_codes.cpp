// Checks of training's products with frozen codes beside plain loops in double.
#include "../training_codes.h"

#include "tensors.h"

namespace riyaz::checks {
namespace {

// What rounding may change of a product of a row of weights and x: half a code of each input, in groups of at most
// WIDE_GROUP columns, or in tiles the rounding to bfloat16; and sums in float32
double allowed_of(const Kernels& k, const float* weights, const Tensor& x, size_t at, int cols) {
    double all = 0;
    for (int begin = 0; begin < cols; begin += WIDE_GROUP) {
        const int end = std::min(cols, begin + WIDE_GROUP);
        double largest = 0;
        for (int c = begin; c < end; c++) largest = std::max(largest, std::fabs(double(x[at + c])));
        for (int c = begin; c < end; c++) {
            const double term = std::fabs(double(weights[c]) * x[at + c]);
            const double half = std::fabs(weights[c]) * largest / 127 / 2;
            all += (k.wide_kind == Wide::tiles ? BF16 * term : half) + 2 * NEAR * (term + half);
        }
    }
    return all;
}

double code_product_check(const Sets& k, bool bf16) {
    double worst = 0;
    const int shapes[][3] = {{1, 31, 1}, {37, 100, 3}, {50, 256, 40}, {16, 192, 600}};  // rows, columns, tokens
    for (const auto& [rows, cols, T] : shapes) {
        const Matrix matrix = random_matrix(Format::int8, rows, cols, uint32_t(cols));
        const Weights& w = matrix.weights;
        const Floats weights = rows_of(k.plain, matrix);
        Tensor x = random_tensor(bf16, 3, size_t(T) * cols), found(bf16, size_t(T) * rows), again = found;
        for (int i = 0; i < T * cols; i++) x.put(i, x[i] * std::exp(4 * std::sin(float(i / cols))));
        code_product(k.checked, w, cols, x.data(), T, bf16, found.data(), false, 1);
        for (int t = 0; t < T; t++)
            for (int r = 0; r < rows; r++) {
                const float* row = &weights[size_t(r) * w.cols];
                double sum = 0;
                for (int c = 0; c < cols; c++) sum += double(row[c]) * x[size_t(t) * cols + c];
                const double rounding = bf16 ? ROUNDED * std::fabs(sum) : 0;
                worst =
                    std::max(worst, error(found[size_t(t) * rows + r], sum,
                                          1.01 * (allowed_of(k.checked, row, x, size_t(t) * cols, cols) + rounding)));
            }
        code_product(k.checked, w, cols, x.data(), T, bf16, again.data(), false, 2);
        worst = std::max(worst, must(again.is_same(found, 0, size_t(T) * rows + GUARDS)));
        code_product(k.checked, w, cols, x.data(), T, bf16, again.data(), true, 2);  // twice, each rounded once
        for (size_t i = 0; i < size_t(T) * rows; i++)
            worst = std::max(worst,
                             error(again[i], 2 * double(found[i]), 3 * (bf16 ? ROUNDED : NEAR) * std::fabs(found[i])));
        x.put(size_t(T) / 2 * cols, NONE);  // a token's result does not depend on others
        code_product(k.checked, w, cols, x.data(), T, bf16, again.data(), false, 2);
        for (int t = 0; t < T; t++) {
            const size_t at = size_t(t) * rows;
            worst = std::max(worst, must(t == T / 2 ? std::isnan(again[at]) : again.is_same(found, at, rows)));
        }
    }
    return worst;
}

// Two layers of the same x with LoRAs, beside the products of codes and thin products in double
struct Loras {
    const Sets& k;
    bool bf16;
    int T, in;
    std::vector<int> outs, ranks;
    std::vector<Matrix> down, up;
    std::vector<Tensor> a, b, y, grads;
    std::vector<Floats> grad_a, grad_b;
    Tensor x, low, grad_x;
    LoraJob job = {};

    Loras(const Sets& sets, bool is_bf16, int tokens, int columns, std::vector<int> rows, std::vector<int> thin)
        : k(sets),
          bf16(is_bf16),
          T(tokens),
          in(columns),
          outs(std::move(rows)),
          ranks(std::move(thin)),
          x(random_tensor(bf16, 3, size_t(T) * in)),
          low(bf16, 0),
          grad_x(bf16, size_t(T) * in) {
        for (size_t i = 0; i < outs.size(); i++) {
            const auto seed = uint32_t(10 * i);
            const size_t out = size_t(outs[i]), rank = size_t(ranks[i]);
            down.push_back(random_matrix(Format::int8, outs[i], in, seed + 1));
            up.push_back(random_matrix(Format::int8, in, outs[i], seed + 2));
            a.push_back(random_tensor(bf16, seed + 3, rank * in)),
                b.push_back(random_tensor(bf16, seed + 4, out * rank));
            y.emplace_back(bf16, T * out), grads.push_back(random_tensor(bf16, seed + 5, T * out));
            grad_a.push_back(with_guards(Floats(rank * in, 1))), grad_b.push_back(with_guards(Floats(out * rank, 1)));
        }
        job.T = T, job.in = in, job.x = {x.data(), size_t(in), bf16};
        for (size_t i = 0; i < outs.size(); i++)
            job.layers.push_back({nullptr,
                                  outs[i],
                                  ranks[i],
                                  1.5f,
                                  {a[i].data(), size_t(in), bf16},
                                  {b[i].data(), size_t(ranks[i]), bf16},
                                  {},
                                  grad_a[i].data(),
                                  grad_b[i].data()});
        low = Tensor(bf16, size_t(T) * lora_lanes(job)), job.low = low.data(), job.grad_x = grad_x.data();
    }
    size_t rows(size_t i) const { return size_t(outs[i]); }
    // What the layer's product of codes is in float32, from the numbers of `from` (T, cols)
    Floats codes(const Weights& w, int cols, const Tensor& from) const {
        Floats numbers(size_t(T) * cols), found(size_t(T) * w.rows);
        for (size_t j = 0; j < numbers.size(); j++) numbers[j] = from[j];
        code_product(k.checked, w, cols, numbers.data(), size_t(T), false, found.data(), false, 1);
        return found;
    }
    void forward(int threads) {
        for (size_t i = 0; i < outs.size(); i++)
            job.layers[i].weights = &down[i].weights, job.layers[i].y = {y[i].data(), rows(i), bf16};
        lora_forward(k.checked, job, threads);
    }
    void backward(int threads) {
        for (size_t i = 0; i < outs.size(); i++)
            job.layers[i].weights = &up[i].weights, job.layers[i].y = {grads[i].data(), rows(i), bf16};
        lora_backward(k.checked, job, threads);
    }
    float low_of(int t, size_t i, int r) const {
        const int before = i ? padded_rank(ranks[0]) : 0;
        return low[size_t(t) * lora_lanes(job) + before + r];
    }
    double forward_error() const {
        double worst = 0;
        for (size_t i = 0; i < outs.size(); i++) {
            const Floats large = codes(down[i].weights, in, x);
            Sums wanted(size_t(T) * rows(i)), thin(size_t(T) * ranks[i]);
            Tensor found(bf16, thin.size());
            for (int t = 0; t < T; t++) {
                for (int r = 0; r < ranks[i]; r++) {
                    const size_t at = size_t(t) * ranks[i] + r;
                    for (int c = 0; c < in; c++) thin[at].add(1.5 * x[size_t(t) * in + c] * a[i][size_t(r) * in + c]);
                    found.put(at, low_of(t, i, r));
                }
                for (int o = 0; o < outs[i]; o++) {
                    Sum& sum = wanted[size_t(t) * rows(i) + o];
                    sum.add(large[size_t(t) * rows(i) + o]);
                    for (int r = 0; r < ranks[i]; r++)
                        sum.add(double(low_of(t, i, r)) * b[i][size_t(o) * ranks[i] + r]);
                }
            }
            worst = std::max({worst, found.error_from(thin), y[i].error_from(wanted)});
        }
        return worst;
    }
    double backward_error() const {
        double worst = 0;
        Sums wanted_x(size_t(T) * in);
        for (size_t i = 0; i < outs.size(); i++) {
            const Floats large = codes(up[i].weights, outs[i], grads[i]);
            for (size_t j = 0; j < large.size(); j++) wanted_x[j].add(large[j]);
            Sums wanted_a(size_t(ranks[i]) * in), wanted_b(rows(i) * ranks[i]);
            for (Sum& sum : wanted_a) sum.add(1);
            for (Sum& sum : wanted_b) sum.add(1);
            for (int t = 0; t < T; t++)
                for (int r = 0; r < ranks[i]; r++) {
                    Sum grad_low;
                    for (int o = 0; o < outs[i]; o++) {
                        const double grad = grads[i][size_t(t) * rows(i) + o];
                        grad_low.add(1.5 * grad * b[i][size_t(o) * ranks[i] + r]);
                        wanted_b[size_t(o) * ranks[i] + r].add(grad * low_of(t, i, r));
                    }
                    if (bf16) grad_low.size += ROUNDED / NEAR * std::fabs(grad_low.value);  // is rounded
                    for (int c = 0; c < in; c++) {
                        wanted_x[size_t(t) * in + c].add(grad_low, a[i][size_t(r) * in + c]);
                        wanted_a[size_t(r) * in + c].add(grad_low, x[size_t(t) * in + c]);
                    }
                }
            worst = std::max({worst, error_of(grad_a[i], wanted_a), error_of(grad_b[i], wanted_b)});
        }
        return std::max(worst, grad_x.error_from(wanted_x));
    }
    static double error_of(const Floats& found, const Sums& wanted) {
        double worst = guarded(found);
        for (size_t i = 0; i < wanted.size(); i++)
            worst = std::max(worst, error(found[i], wanted[i].value, NEAR * wanted[i].size));
        return worst;
    }
};

double lora_check(const Sets& k, bool bf16) {
    struct Case {
        int T, in;
        std::vector<int> outs, ranks;
    };
    const Case cases[] = {{1, 31, {1, 40}, {1, 16}},
                          {13, 100, {37, 6}, {3, 20}},
                          {31, 96, {64, 32}, {16, 8}},
                          {520, 18, {70, 33}, {5, 65}}};
    double worst = 0;
    for (const Case& each : cases) {
        Loras one(k, bf16, each.T, each.in, each.outs, each.ranks),
            two(k, bf16, each.T, each.in, each.outs, each.ranks);
        one.forward(1), two.forward(2);
        worst = std::max(worst, one.forward_error());
        one.backward(1), two.backward(2);
        worst = std::max(worst, one.backward_error());
        for (size_t i = 0; i < one.outs.size(); i++) {
            worst = std::max(worst, must(one.y[i].is_same(two.y[i], 0, one.y[i].size())));
            worst = std::max({worst, same(one.grad_a[i], two.grad_a[i]), same(one.grad_b[i], two.grad_b[i])});
        }
        worst = std::max(worst, must(one.grad_x.is_same(two.grad_x, 0, one.grad_x.size())));
    }
    return worst;
}

}  // namespace

const std::vector<Check> training_codes = {
    {"training codes fp32", typed<code_product_check, false>},
    {"training codes bf16", typed<code_product_check, true>},
    {"training lora fp32", typed<lora_check, false>},
    {"training lora bf16", typed<lora_check, true>},
};

}  // namespace riyaz::checks
