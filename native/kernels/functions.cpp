// Norms, rotations, activations and sums over vectors of floats.
#include "kernels/chunks.h"
#include "kernels/isa.h"

namespace riyaz {
namespace RIYAZ_ISA {
void rms_norm(const float* x, const float* weight, float eps, int C, float* out) {
    F squares = zero();
    chunks(C, [&](int i, int n) {
        const F v = load_some(x + i, n);
        squares = fma(v, v, squares);
    });
    const F scale = set(1 / __builtin_sqrtf(sum_of(squares) / float(C) + eps));
    chunks(C, [&](int i, int n) {
        store_some(out + i, mul(mul(load_some(x + i, n), scale), load_some(weight + i, n)), n);
    });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int C, float* out) {
    F total = zero(), squares = zero();
    chunks(C, [&](int i, int n) { total = add(total, load_some(x + i, n)); });
    const float mean = sum_of(total) / float(C);
    chunks(C, [&](int i, int n) {
        const F v = sub(load_some(x + i, n, mean), set(mean));
        squares = fma(v, v, squares);
    });
    const F scale = set(1 / __builtin_sqrtf(sum_of(squares) / float(C) + eps));
    chunks(C, [&](int i, int n) {
        const F v = mul(sub(load_some(x + i, n), set(mean)), scale);
        store_some(out + i, fma(v, load_some(weight + i, n), load_some(bias + i, n)), n);
    });
}

void rotate(float* x, const float* cos, const float* sin, int D, float scale) {
    const int half_ = D / 2;
    chunks(half_, [&](int i, int n) {
        const F c = mul(load_some(cos + i, n), set(scale)), s = mul(load_some(sin + i, n), set(scale));
        const F a = load_some(x + i, n), b = load_some(x + half_ + i, n);
        store_some(x + i, sub(mul(a, c), mul(b, s)), n);
        store_some(x + half_ + i, fma(b, c, mul(a, s)), n);
    });
}

void activate(float* x, const float* y, Activation activation, int n) {
    chunks(n, [&](int i, int count) {
        F v = load_some(x + i, count);
        v = activated(v, activation);
        store_some(x + i, y ? mul(v, load_some(y + i, count)) : v, count);
    });
}

// With P the normal distribution, gelu(x) = x P(x) = max(x, 0) - |x| P(-|x|), and P(-z) = t p(t) exp(-z^2 / 2) / 2 with
// t = 1 / (1 + 0.3275911 z / sqrt(2)): formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions
// (1964).
void gelu_erf(float* x, const float* bias, int n) {
    chunks(n, [&](int i, int count) {
        const F v = add(load_some(x + i, count), load_some(bias + i, count)), z = abs(v);
        const F t = div(set(1), fma(set(0.3275911f * 0.70710678118654752f), z, set(1)));
        F p = set(0.5f * 1.061405429f);
        p = fma(p, t, set(0.5f * -1.453152027f));
        p = fma(p, t, set(0.5f * 1.421413741f));
        p = fma(p, t, set(0.5f * -0.284496736f));
        p = fma(p, t, set(0.5f * 0.254829592f));
        const F tail = mul(mul(p, t), exp(mul(mul(v, v), set(-0.5f))));
        store_some(x + i, sub(max(v, zero()), mul(z, tail)), count);
    });
}

void softmax_sums(const float* x, int n, float* largest, float* sum) {
    F top = set(-INFINITY), total = zero();
    chunks(n, [&](int i, int count) { top = max(top, load_some(x + i, count, -INFINITY)); });
    *largest = max_of(top);
    chunks(n, [&](int i, int count) {
        const F e = exp(sub(load_some(x + i, count, *largest), set(*largest)));
        total = add(total, count == 16 ? e : select((1u << count) - 1, e, zero()));
    });
    *sum = sum_of(total);
}

float largest(const float* x, int n) {
    F top = set(-INFINITY);
    chunks(n, [&](int i, int count) { top = max(top, load_some(x + i, count, -INFINITY)); });
    return max_of(top);
}

void add_to(float* x, const float* y, int n) {
    chunks(n,
           [&](int i, int count) { store_some(x + i, add(load_some(x + i, count), load_some(y + i, count)), count); });
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
