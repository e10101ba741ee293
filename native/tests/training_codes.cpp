// Checks of training's products with frozen codes beside plain loops in double.
#include "training/codes.h"

#include "tests/tensors.h"

namespace riyaz::checks {
namespace {

float weight_of(const FrozenCodes& w, int row, int col) {
    const CodeTerm term = w.term(row / STRIP, col / CODE_GROUP, 1, {});
    const int code = term.codes[col % CODE_GROUP / 4 * STEP_BYTES + row % STRIP * 4 + col % 4];
    return term.scale[row % STRIP] * float(code - 128);
}

// What rounding may change of a product of a row of weights and x: half a code of each input, and sums in float32
double allowed_of(const FrozenCodes& w, int row, const Tensor& x, size_t at) {
    double all = 0;
    for (int begin = 0; begin < w.cols; begin += CODE_GROUP) {
        const int end = std::min(w.cols, begin + CODE_GROUP);
        double largest = 0;
        for (int c = begin; c < end; c++) largest = std::max(largest, std::fabs(double(x[at + c])));
        for (int c = begin; c < end; c++) {
            const double weight = weight_of(w, row, c), half = std::fabs(weight) * largest / 127 / 2;
            all += half + 2 * NEAR * (std::fabs(weight * x[at + c]) + half);
        }
    }
    return all;
}

// Random codes of random weights, which they must be near to
FrozenCodes random_codes(int rows, int cols, uint32_t seed, double& worst) {
    const Floats weights = Random(seed).numbers(size_t(rows) * cols, 3);
    FrozenCodes codes(rows, cols);
    const int first = rows / 3;
    worst = std::max(worst, must(codes.fill(0, first, weights.data(), 1)));
    worst = std::max(worst, must(codes.fill(first, rows - first, &weights[size_t(first) * cols], 2)));
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            const float* group = &weights[size_t(r) * cols + c - c % CODE_GROUP];
            const int n = std::min(CODE_GROUP, cols - (c - c % CODE_GROUP));
            double largest = 0;
            for (int i = 0; i < n; i++) largest = std::max(largest, std::fabs(double(group[i])));
            const double off = error(weight_of(codes, r, c), group[c % CODE_GROUP], 1.001 * largest / 127 / 2);
            worst = std::max(worst, must(off <= 1));
        }
    Floats damaged(size_t(cols), 1);
    damaged.back() = NONE;
    const float before = weight_of(codes, 0, 0);
    worst = std::max(worst, must(!codes.fill(0, 1, damaged.data(), 1) && weight_of(codes, 0, 0) == before));
    return codes;
}

double code_product_check(const Sets& k, bool bf16) {
    double worst = 0;
    // rows, columns, tokens; the last has more columns than pass at a time
    const int shapes[][3] = {{1, 31, 1}, {37, 100, 3}, {50, 256, 40}, {16, 192, 600}, {33, 9000, 13}};
    for (const auto& [rows, cols, T] : shapes) {
        if (left_out(T + bf16, 2)) continue;
        const FrozenCodes w = random_codes(rows, cols, uint32_t(cols), worst);
        Tensor x = random_tensor(bf16, 3, size_t(T) * cols), found(bf16, size_t(T) * rows), again = found;
        for (int i = 0; i < T * cols; i++) x.put(i, x[i] * std::exp(4 * std::sin(float(i / cols))));
        const MatrixView from{x.data(), size_t(cols), bf16};
        code_product(k.checked, w, from, T, {found.data(), size_t(rows), bf16}, 1);
        for (int t = 0; t < T; t++)
            for (int r = 0; r < rows; r++) {
                double sum = 0;
                for (int c = 0; c < cols; c++) sum += double(weight_of(w, r, c)) * x[size_t(t) * cols + c];
                const double rounding = bf16 ? ROUNDED * std::fabs(sum) : 0;
                const double allowed = 1.01 * (allowed_of(w, r, x, size_t(t) * cols) + rounding);
                worst = std::max(worst, error(found[size_t(t) * rows + r], sum, allowed));
            }
        const MatrixView to{again.data(), size_t(rows), bf16};
        code_product(k.checked, w, from, T, to, 2);
        worst = std::max(worst, must(again.is_same(found, 0, size_t(T) * rows + GUARDS)));
        x.put(size_t(T) / 2 * cols, NONE);  // a token's result does not depend on others
        code_product(k.checked, w, from, T, to, 2);
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
    std::vector<FrozenCodes> down, up;
    std::vector<Tensor> a, b, y, grads;
    std::vector<Floats> grad_a, grad_b;
    Tensor x, low, grad_x;
    LoraJob job = {};
    double worst = 0;

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
            down.push_back(random_codes(outs[i], in, seed + 1, worst));
            up.push_back(random_codes(in, outs[i], seed + 2, worst));
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
    Floats codes(const FrozenCodes& w, const Tensor& from) const {
        Floats numbers(size_t(T) * w.cols), found(size_t(T) * w.rows);
        for (size_t j = 0; j < numbers.size(); j++) numbers[j] = from[j];
        const MatrixView x{numbers.data(), size_t(w.cols), false}, to{found.data(), size_t(w.rows), false};
        code_product(k.checked, w, x, T, to, 1);
        return found;
    }
    void forward(int threads) {
        for (size_t i = 0; i < outs.size(); i++)
            job.layers[i].weights = &down[i], job.layers[i].y = {y[i].data(), rows(i), bf16};
        lora_forward(k.checked, job, threads);
    }
    void backward(int threads) {
        for (size_t i = 0; i < outs.size(); i++)
            job.layers[i].weights = &up[i], job.layers[i].y = {grads[i].data(), rows(i), bf16};
        lora_backward(k.checked, job, threads);
    }
    float low_of(int t, size_t i, int r) const {
        const int before = i ? padded_rank(ranks[0]) : 0;
        return low[size_t(t) * lora_lanes(job) + before + r];
    }
    double forward_error() const {
        double worst = 0;
        for (size_t i = 0; i < outs.size(); i++) {
            const Floats large = codes(down[i], x);
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
            const Floats large = codes(up[i], grads[i]);
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
        if (left_out(each.in + bf16, 2)) continue;
        Loras one(k, bf16, each.T, each.in, each.outs, each.ranks),
            two(k, bf16, each.T, each.in, each.outs, each.ranks);
        worst = std::max(worst, one.worst);
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
