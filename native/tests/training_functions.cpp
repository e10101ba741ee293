// Checks of norm, rotation, gate and cross-entropy of training, and of their gradients, beside plain loops in double.
// Every kernel runs in two parts, and again with a NaN among its inputs.
#include "training/functions.h"

#include "tests/tensors.h"

namespace riyaz::checks {
namespace {

constexpr double FLOOR = 1e-6;  // size of what a gate gives where its exponential leaves the range of float
constexpr float BEFORE = 0.5;   // what the gradient of a weight holds before a kernel adds to it
constexpr int T = 3;            // rows

// Calls work(begin, end) for the first third of n things and for the others.
template <class Work>
void in_two(size_t n, const Work& work) {
    work(size_t(0), n / 3), work(n / 3, n);
}

// The largest of error_of(length, damaged), over all
template <class Error>
double over(const std::vector<int>& lengths, const Error& error_of) {
    double worst = 0;
    for (const int n : lengths)
        for (const bool damaged : {false, true}) worst = std::max(worst, error_of(n, damaged));
    return worst;
}

const std::vector<int> LENGTHS = {1, 7, 16, 33, 576};

double norm_check(const Sets& k, bool bf16) {
    return over(LENGTHS, [&](int C, bool damaged) {
        const Floats weight = Random(1).numbers(C);
        Tensor x = random_tensor(bf16, 2, size_t(T) * C, 3, damaged), out(bf16, x.size()), scale(false, T);
        NormJob job;
        job.x = x.data(), job.weight = weight.data(), job.scale = (float*)scale.data(), job.out = out.data();
        job.C = C, job.eps = 0.1f, job.bf16 = bf16;
        in_two(T, [&](size_t begin, size_t end) { k.checked.norm(job, begin, end); });
        Sums wanted(x.size()), scales(T);
        for (int t = 0; t < T; t++) {
            double squares = 0;
            for (int i = t * C; i < (t + 1) * C; i++) squares += double(x[i]) * x[i];
            scales[t].add(1 / std::sqrt(squares / C + job.eps));
            for (int c = 0; c < C; c++) wanted[t * C + c].add(x[t * C + c] * scales[t].value * weight[c]);
        }
        return std::max(out.error_from(wanted), scale.error_from(scales));
    });
}

double norm_gradient_check(const Sets& k, bool bf16) {
    return over(LENGTHS, [&](int C, bool damaged) {
        const Floats weight = Random(1).numbers(C);
        Tensor x = random_tensor(bf16, 2, size_t(T) * C, 3, damaged), grad = random_tensor(bf16, 3, x.size());
        Tensor scale = random_tensor(false, 4, T), grad_weight(false, Floats(C, BEFORE));
        Tensor out(bf16, x.size()), alone = out;
        NormJob job;
        job.x = x.data(), job.grad = grad.data(), job.weight = weight.data(), job.scale = (float*)scale.data();
        job.out = out.data(), job.C = C, job.bf16 = bf16;
        in_two(T,
               [&](size_t begin, size_t end) { k.checked.norm_gradient(job, begin, end, (float*)grad_weight.data()); });
        job.out = alone.data();  // without the gradient of the weight
        k.checked.norm_gradient(job, 0, T, nullptr);
        Sums wanted(x.size()), of_weight(C);
        for (Sum& sum : of_weight) sum.add(BEFORE);
        for (int t = 0; t < T; t++) {
            Sum dot;  // of normed inputs and their gradients
            for (int c = 0; c < C; c++) {
                const double normed = double(x[t * C + c]) * scale[t], g = grad[t * C + c];
                dot.add(g * weight[c] * normed), of_weight[c].add(g * normed);
            }
            for (int i = t * C; i < (t + 1) * C; i++) {
                const double normed = double(x[i]) * scale[t];
                wanted[i].add(double(grad[i]) * weight[i - t * C] * scale[t]);
                wanted[i].value -= normed * dot.value / C * scale[t];
                wanted[i].size += std::fabs(normed * dot.size / C * scale[t]);
            }
        }
        return std::max(
            {out.error_from(wanted), grad_weight.error_from(of_weight), must(alone.is_same(out, 0, out.size()))});
    });
}

double rotation_check(const Sets& k, bool bf16) {
    return over({2, 14, 32, 66, 80, 256}, [&](int D, bool damaged) {
        const int half = D / 2;
        double worst = 0;
        for (const int H : {1, 7}) {
            Tensor x = random_tensor(bf16, 1, size_t(T) * H * D, 3, damaged);
            Tensor cos = random_tensor(bf16, 2, T * D), sin = random_tensor(bf16, 3, T * D);
            for (const bool back : {false, true}) {
                Tensor out(bf16, x.size());
                const RotateJob job = {x.data(), cos.data(), sin.data(), out.data(), H, D, back, bf16};
                in_two(T, [&](size_t begin, size_t end) { k.checked.rotation(job, begin, end); });
                Sums wanted(x.size());
                for (int i = 0; i < int(x.size()); i++) {
                    const int d = i % D, at = i / (H * D) * D + d, other = d < half ? i + half : i - half;
                    wanted[i].add(double(x[i]) * cos[at]);
                    wanted[i].add(double(x[other]) * sin[at] * (back ? -1 : 1));
                }
                worst = std::max(worst, out.error_from(wanted));
            }
        }
        return worst;
    });
}

// An activation x s, with s = 1 / (1 + e^-z)
struct Gate {
    double s, rest, slope;  // rest: 1 - s; slope: x dz/dx
    double worth;           // how much larger the error of s is than that of a number in float, by that of z

    Gate(Activation activation, double x) {
        const double twice = 2 * std::sqrt(2 / std::acos(-1.0)) * x;  // 2 u of GELU where x is small
        const bool silu = activation == Activation::silu;
        const double z = silu ? x : twice * (1 + 0.044715 * x * x);
        slope = silu ? x : twice * (1 + 3 * 0.044715 * x * x);
        s = 1 / (1 + std::exp(-z)), rest = 1 / (1 + std::exp(z));
        worth = 1 + std::fabs(z) * rest;
    }
};

template <Activation ACTIVATION>
double gate_check(const Sets& k, bool bf16) {
    return over(LENGTHS, [&](int n, bool damaged) {
        double worst = 0;
        for (const float large : {1.0f, 10.0f, 200.0f}) {
            const int T = 3, all = T * n;
            const Tensor gate = random_tensor(bf16, 1, all, large, damaged), up = random_tensor(bf16, 2, all);
            Tensor grad = random_tensor(bf16, 3, all), out(bf16, all), both(bf16, 2 * all), grads = both;
            for (int i = 0; i < all; i++)  // gate and up are columns of one matrix, and so are their gradients
                both.put(i / n * 2 * n + i % n, gate[i]), both.put(i / n * 2 * n + n + i % n, up[i]);
            const size_t right = size_t(n) * (bf16 ? 2 : 4);
            GateJob job;
            job.C = n, job.row = job.grad_row = 2 * size_t(n);
            job.gate = both.data(), job.up = (uint8_t*)both.data() + right, job.grad = grad.data();
            job.grad_gate = grads.data(), job.grad_up = (uint8_t*)grads.data() + right, job.out = out.data();
            job.activation = ACTIVATION, job.bf16 = bf16;
            in_two(T, [&](size_t begin, size_t end) {
                k.checked.gate(job, begin, end), k.checked.gate_gradient(job, begin, end);
            });
            Sums wanted(all, Sum{0, FLOOR}), of_both(2 * all, Sum{0, FLOOR});
            for (int i = 0; i < all; i++) {
                const Gate g(ACTIVATION, gate[i]);
                const double pull = double(grad[i]) * up[i] * g.s;
                Sum &of_gate = of_both[i / n * 2 * n + i % n], &of_up = of_both[i / n * 2 * n + n + i % n];
                wanted[i].add(gate[i] * g.s * up[i], g.worth);
                of_up.add(gate[i] * g.s * grad[i], g.worth);
                of_gate.add(pull, g.worth), of_gate.add(pull * g.slope * g.rest, 2 * g.worth);
            }
            worst = std::max({worst, out.error_from(wanted), grads.error_from(of_both)});
        }
        return worst;
    });
}

double add_check(const Sets& k, bool bf16) {
    return over(LENGTHS, [&](int n, bool damaged) {
        Tensor total = random_tensor(false, 1, n), x = random_tensor(bf16, 2, n, 3, damaged);
        Sums wanted(n);
        for (int i = 0; i < n; i++) wanted[i].add(total[i]), wanted[i].add(0.25 * x[i]);
        const SumJob job = {(float*)total.data(), x.data(), 0.25f, bf16};
        in_two(n, [&](size_t begin, size_t end) { k.checked.add_scaled(job, begin, end); });
        return total.error_from(wanted);
    });
}

double round_check(const Sets& k, bool bf16) {
    return over(LENGTHS, [&](int n, bool damaged) {
        Tensor weight = random_tensor(bf16, 1, n, 1, damaged);
        std::vector<int8_t> codes(n);
        RoundJob job = {weight.data(), codes.data(), 2, bf16};
        double sum = 0, wanted = 0, wrong = 0;
        in_two(n, [&](size_t begin, size_t end) {
            sum += k.checked.absolute_sum(job, begin, end), k.checked.round_ternary(job, begin, end);
        });
        for (int i = 0; i < n; i++) {
            const double scaled = double(weight[i]) * 2;
            wanted += std::abs(double(weight[i]));
            wrong += codes[i] != (scaled > 0.5) - (scaled < -0.5);
        }
        return wrong + (std::isfinite(wanted) ? std::abs(sum - wanted) / wanted * 1e9 : std::isfinite(sum));
    });
}

// The bits of a float as those of a bfloat16 and what they differ by
struct Halves {
    std::vector<uint16_t> upper;
    std::vector<int16_t> low;
    explicit Halves(const Tensor& x) : upper(x.size()), low(x.size()) {
        for (size_t i = 0; i < x.size(); i++) {
            const uint32_t bits = bits_of(x[i]);
            upper[i] = uint16_t((bits + 0x8000) >> 16), low[i] = int16_t(uint16_t(bits));
        }
    }
    float operator[](size_t i) const {
        const uint32_t bits = (uint32_t(upper[i]) << 16) + uint32_t(int32_t(low[i]));
        float x;
        memcpy(&x, &bits, 4);
        return x;
    }
    static uint32_t bits_of(double x) {
        const float number = float(x);
        uint32_t bits;
        memcpy(&bits, &number, 4);
        return bits;
    }
};

double adam_check(const Sets& k, bool bf16) {
    return over(LENGTHS, [&](int n, bool damaged) {
        Tensor weight = random_tensor(false, 1, n), mean = random_tensor(bf16, 2, n), square(false, n);
        Tensor grad = random_tensor(false, 4, n, 3, damaged);
        for (int i = 0; i < n; i++) ((float*)square.data())[i] = mean[i] * mean[i];
        Halves halves(weight);
        AdamJob job;
        job.weight = bf16 ? (void*)halves.upper.data() : weight.data(), job.low = bf16 ? halves.low.data() : nullptr;
        job.mean = mean.data(), job.square = (float*)square.data(), job.grad = (float*)grad.data();
        job.factor = 0.5f, job.beta1 = 0.9f, job.beta2 = 0.99f, job.keep = 0.999f;
        job.size = 0.01f, job.root = 0.5f, job.eps = 1e-3f;
        Sums weights(n), means(n), squares(n);
        const Sums zeros(n);
        for (int i = 0; i < n; i++) {
            const double g = double(job.factor) * grad[i];
            const double m = mean[i] + (1 - double(job.beta1)) * (g - mean[i]);
            const double v = square[i] + (1 - double(job.beta2)) * (g * g - square[i]);
            const double large = std::fabs(g) + std::fabs(mean[i]), larger = g * g + square[i];  // before they cancel
            const double under = std::sqrt(v) / job.root + job.eps, step = job.size * m / under;
            means[i] = {m, large}, squares[i] = {v, larger};
            weights[i] = {double(job.keep) * weight[i] - step,
                          std::fabs(weight[i]) + job.size * large / under + std::fabs(step) * larger / v};
        }
        in_two(n, [&](size_t begin, size_t end) { k.checked.adam(job, begin, end); });
        for (int i = 0; bf16 && i < n; i++) {
            const uint32_t bits = Halves::bits_of(halves[i]);  // of a NaN they are nobody's business
            if (halves[i] == halves[i] && halves.upper[i] != uint16_t((bits + 0x8000) >> 16)) return double(INFINITY);
            ((float*)weight.data())[i] = halves[i];
        }
        return std::max(
            {weight.error_from(weights), mean.error_from(means), square.error_from(squares), grad.error_from(zeros)});
    });
}

double loss_check(const Sets& k, bool bf16) {
    return over({1, 7, 33, 1000, 2100}, [&](int V, bool damaged) {
        double worst = 0;
        for (const bool gradient : {false, true}) {
            Tensor logits = random_tensor(bf16, 1, size_t(T) * V, 10, damaged);
            const Tensor given = logits;
            const std::vector<int64_t> labels = {0, V / 2, V - 1};
            std::vector<double> nats(T, NONE);
            const LossJob job = {logits.data(), labels.data(), nats.data(), V, gradient, bf16};
            in_two(T, [&](size_t begin, size_t end) { k.checked.loss(job, begin, end); });
            if (!gradient) worst = std::max(worst, must(logits.is_same(given, 0, given.size() + GUARDS)));
            Sums wanted(given.size());
            for (int row = 0; row < T; row++) {
                double largest = -INFINITY, sum = 0;
                for (int c = 0; c < V; c++) largest = std::max(largest, double(given[row * V + c]));
                for (int c = 0; c < V; c++) sum += std::exp(given[row * V + c] - largest);
                const double below = largest - given[row * V + labels[row]];
                worst = std::max(worst, error(nats[row], std::log(sum) + below, NEAR * (1 + below)));
                for (int c = 0; c < V; c++) {
                    const double x = given[row * V + c] - largest;
                    wanted[row * V + c].add(std::exp(x) / sum, 1 - x);
                }
                wanted[row * V + labels[row]].add(-1);
            }
            if (gradient) worst = std::max(worst, logits.error_from(wanted));
        }
        return worst;
    });
}

}  // namespace

const std::vector<Check> training_functions = {
    {"training norm fp32", typed<norm_check, false>},
    {"training norm bf16", typed<norm_check, true>},
    {"training norm_gradient fp32", typed<norm_gradient_check, false>},
    {"training norm_gradient bf16", typed<norm_gradient_check, true>},
    {"training rotation fp32", typed<rotation_check, false>},
    {"training rotation bf16", typed<rotation_check, true>},
    {"training gate silu fp32", typed<gate_check<Activation::silu>, false>},
    {"training gate silu bf16", typed<gate_check<Activation::silu>, true>},
    {"training gate gelu fp32", typed<gate_check<Activation::gelu_tanh>, false>},
    {"training gate gelu bf16", typed<gate_check<Activation::gelu_tanh>, true>},
    {"training add_scaled fp32", typed<add_check, false>},
    {"training add_scaled bf16", typed<add_check, true>},
    {"training ternary codes fp32", typed<round_check, false>},
    {"training ternary codes bf16", typed<round_check, true>},
    {"training adam fp32", typed<adam_check, false>},
    {"training adam bf16", typed<adam_check, true>},
    {"training loss fp32", typed<loss_check, false>},
    {"training loss bf16", typed<loss_check, true>},
};

}  // namespace riyaz::checks
