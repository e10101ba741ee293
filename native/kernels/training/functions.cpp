// Norm, rotation, gate and cross-entropy of training.
#include "training/functions.h"

#include "kernels/chunks.h"
#include "kernels/isa.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

// What runs for float and for bfloat16 alike: N is float or uint16_t.

template <class N>
void norm_rows(const NormJob& job, size_t begin, size_t end) {
    for (size_t t = begin; t < end; t++) {
        const N* x = (const N*)job.x + t * job.C;
        N* out = (N*)job.out + t * job.C;
        F squares = zero();
        chunks(job.C, [&](int i, int n) {
            const F v = load_some(x + i, n);
            squares = fma(v, v, squares);
        });
        job.scale[t] = 1 / __builtin_sqrtf(sum_of(squares) / float(job.C) + job.eps);
        const F scale = set(job.scale[t]);
        chunks(job.C, [&](int i, int n) {
            store_some(out + i, mul(mul(load_some(x + i, n), scale), load_some(job.weight + i, n)), n);
        });
    }
}

// With n = x * scale and g = grad * weight: the gradient of x is scale * (g - n * mean(g * n)), that of weight grad *
// n.
template <class N>
void norm_gradient_rows(const NormJob& job, size_t begin, size_t end, float* grad_weight) {
    for (size_t t = begin; t < end; t++) {
        const N *x = (const N*)job.x + t * job.C, *grad = (const N*)job.grad + t * job.C;
        N* out = (N*)job.out + t * job.C;
        const F scale = set(job.scale[t]);
        F dot = zero();
        chunks(job.C, [&](int i, int n) {
            const F g = mul(load_some(grad + i, n), load_some(job.weight + i, n));
            dot = fma(g, mul(load_some(x + i, n), scale), dot);
        });
        const F mean = set(sum_of(dot) / float(job.C));
        chunks(job.C, [&](int i, int n) {
            const F normed = mul(load_some(x + i, n), scale), g = load_some(grad + i, n);
            const F pull = sub(mul(g, load_some(job.weight + i, n)), mul(normed, mean));
            store_some(out + i, mul(pull, scale), n);
            if (grad_weight) store_some(grad_weight + i, fma(g, normed, load_some(grad_weight + i, n)), n);
        });
    }
}

template <class N>
void rotation_rows(const RotateJob& job, size_t begin, size_t end) {
    const int half = job.D / 2;
    const F sign = set(job.back ? -1.0f : 1.0f);
    for (size_t t = begin; t < end; t++) {
        const N *cos = (const N*)job.cos + t * job.D, *sin = (const N*)job.sin + t * job.D;
        const N* token = (const N*)job.x + t * job.H * job.D;
        N* turned = (N*)job.out + t * job.H * job.D;
        chunks(half, [&](int i, int n) {
            const F cos_low = load_some(cos + i, n), sin_low = mul(sign, load_some(sin + i, n));
            const F cos_high = load_some(cos + half + i, n), sin_high = mul(sign, load_some(sin + half + i, n));
            for (int at = i; at < job.H * job.D; at += job.D) {
                const F low = load_some(token + at, n), high = load_some(token + at + half, n);
                store_some(turned + at, fma(high, sin_low, mul(low, cos_low)), n);
                store_some(turned + at + half, fma(low, sin_high, mul(high, cos_high)), n);
            }
        });
    }
}

template <class N, Activation A>
void gate_rows(const GateJob& job, size_t begin, size_t end) {
    for (size_t t = begin; t < end; t++) {
        const N *gate = (const N*)job.gate + t * job.row, *up = (const N*)job.up + t * job.row;
        N* out = (N*)job.out + t * job.C;
        chunks(job.C, [&](int i, int n) {
            const F x = load_some(gate + i, n), y = A == Activation::silu ? silu(x) : gelu_tanh(x);
            store_some(out + i, mul(y, load_some(up + i, n)), n);
        });
    }
}

// Both activations are x s with s = 1 / (1 + e^(-z)): z = x, or z = 2 u of GELU. The derivative is
// s + x s (1 - s) dz/dx, and 1 - s = e^(-z) s.
template <class N, Activation A>
void gate_gradient_rows(const GateJob& job, size_t begin, size_t end) {
    for (size_t t = begin; t < end; t++) {
        const N *gate = (const N*)job.gate + t * job.row, *up = (const N*)job.up + t * job.row;
        const N* grad = (const N*)job.grad + t * job.C;
        N *grad_gate = (N*)job.grad_gate + t * job.grad_row, *grad_up = (N*)job.grad_up + t * job.grad_row;
        chunks(job.C, [&](int i, int n) {
            const F x = load_some(gate + i, n), g = load_some(grad + i, n);
            F z = x, slope = x;  // slope: x dz/dx
            if (A == Activation::gelu_tanh) {
                const F twice = mul(set(1.5957691216057308f), x), squared = mul(x, x);
                z = mul(twice, fma(squared, set(0.044715f), set(1)));
                slope = mul(twice, fma(squared, set(0.134145f), set(1)));
            }
            const F e = exp(sub(zero(), z)), s = div(set(1), add(set(1), e));
            const F derivative = mul(s, fma(slope, mul(e, s), set(1)));
            store_some(grad_up + i, mul(g, mul(x, s)), n);
            store_some(grad_gate + i, mul(mul(g, load_some(up + i, n)), derivative), n);
        });
    }
}

constexpr int SUMMED = 1024;  // exponentials added in float; sums of so many are added in double

// Writes exp(x - largest) over a row of floats if `keep`; returns the sum.
template <class N>
double exponentials(N* x, int V, F largest, bool keep) {
    double sum = 0;
    for (int from = 0; from < V; from += SUMMED) {
        F part = zero();
        chunks(V - from < SUMMED ? V - from : SUMMED, [&](int i, int n) {
            F e = exp(sub(load_some(x + from + i, n), largest));
            if (n < 16) e = select((1u << n) - 1, e, zero());
            part = add(part, e);
            if (keep) store_some(x + from + i, e, n);
        });
        sum += sum_of(part);
    }
    return sum;
}

template <class N>
void loss_rows(const LossJob& job, size_t begin, size_t end) {
    const bool keep = job.gradient && sizeof(N) == sizeof(float);  // bfloat16 would round them
    for (size_t row = begin; row < end; row++) {
        N *x = (N*)job.logits + row * job.V, *own = x + job.labels[row];
        F top = set(-INFINITY);
        chunks(job.V, [&](int i, int n) { top = max(top, load_some(x + i, n, -INFINITY)); });
        const float most = max_of(top);
        const F largest = set(most), below = sub(load_some(own, 1), largest);
        const double sum = exponentials(x, job.V, largest, keep);
        float label[16];
        store(label, below);
        job.nats[row] = __builtin_log(sum) - double(label[0]);
        if (!job.gradient) continue;
        const F share = set(float(1 / sum));
        store(label, sub(mul(exp(below), share), set(1)));
        chunks(job.V, [&](int i, int n) {
            const F v = load_some(x + i, n);
            store_some(x + i, mul(keep ? v : exp(sub(v, largest)), share), n);
        });
        store_some(own, set(label[0]), 1);
    }
}

template <class N>
void add_numbers(const SumJob& job, size_t begin, size_t end) {
    const N* x = (const N*)job.x + begin;
    float* total = job.total + begin;
    const F factor = set(job.factor);
    chunks(int(end - begin),
           [&](int i, int n) { store_some(total + i, fma(factor, load_some(x + i, n), load_some(total + i, n)), n); });
}

// In double, since the mean decides about codes: it must be that of any other order of additions.
template <class N>
double absolute_sum_of(const N* x, size_t count) {
    double sums[16] = {}, sum = 0;
    chunks(int(count), [&](int i, int n) {
        float sizes[16];
        store(sizes, abs(load_some(x + i, n)));
        for (int j = 0; j < 16; j++) sums[j] += double(sizes[j]);
    });
    for (const double each : sums) sum += each;
    return sum;
}

// A half is rounded to 0, the even number.
template <class N>
void round_numbers(const RoundJob& job, size_t begin, size_t end) {
    const N* weight = (const N*)job.weight + begin;
    int8_t* codes = job.codes + begin;
    const F inverse = set(job.inverse);
    chunks(int(end - begin), [&](int i, int n) {
        float scaled[16];
        store(scaled, mul(load_some(weight + i, n), inverse));
        int8_t made[16];
        for (int j = 0; j < 16; j++) made[j] = int8_t((scaled[j] > 0.5f) - (scaled[j] < -0.5f));
        memcpy(codes + i, made, size_t(n));
    });
}

// n weights of 32 bits from x[at] on: floats, or bfloat16 and the difference of their bits
INLINE F load_exact(const float* x, const int16_t*, int at, int n) { return load_some(x + at, n); }
INLINE F load_exact(const uint16_t* x, const int16_t* low, int at, int n) {
    uint32_t bits[16] = {};
    for (int i = 0; i < n; i++) bits[i] = (uint32_t(x[at + i]) << 16) + uint32_t(int32_t(low[at + i]));
    float part[16];
    memcpy(part, bits, sizeof(part));
    return load(part);
}
INLINE void store_exact(float* x, int16_t*, int at, F v, int n) { store_some(x + at, v, n); }
INLINE void store_exact(uint16_t* x, int16_t* low, int at, F v, int n) {
    float part[16];
    store(part, v);
    uint32_t bits[16];
    memcpy(bits, part, sizeof(bits));
    for (int i = 0; i < n; i++) {
        x[at + i] = uint16_t((bits[i] + 0x8000) >> 16);  // between two up, so that the difference fits 16 bits
        low[at + i] = int16_t(uint16_t(bits[i]));
    }
}

template <class N>
void adam_numbers(const AdamJob& job, size_t begin, size_t end) {
    const F factor = set(job.factor), new1 = set(1 - job.beta1), new2 = set(1 - job.beta2);
    const F keep = set(job.keep), size = set(-job.size), root = set(job.root), eps = set(job.eps);
    N *weight = (N*)job.weight + begin, *mean = (N*)job.mean + begin;
    int16_t* low = job.low ? job.low + begin : nullptr;
    float *square = job.square + begin, *grad = job.grad + begin;
    const auto step = [&](int i, int n) {
        const F g = mul(load_some(grad + i, n), factor);
        const F old1 = load_some(mean + i, n), old2 = load_some(square + i, n);
        const F m = fma(new1, sub(g, old1), old1), v = fma(new2, sub(mul(g, g), old2), old2);
        const F change = div(mul(size, m), add(div(sqrt(v), root), eps));
        store_exact(weight, low, i, fma(keep, load_exact(weight, low, i, n), change), n);
        store_some(mean + i, m, n), store_some(square + i, v, n), store_some(grad + i, zero(), n);
    };
    chunks(int(end - begin), step);
}

}  // namespace

void norm(const NormJob& job, size_t begin, size_t end) {
    (job.bf16 ? norm_rows<uint16_t> : norm_rows<float>)(job, begin, end);
}

void norm_gradient(const NormJob& job, size_t begin, size_t end, float* grad_weight) {
    (job.bf16 ? norm_gradient_rows<uint16_t> : norm_gradient_rows<float>)(job, begin, end, grad_weight);
}

void rotation(const RotateJob& job, size_t begin, size_t end) {
    (job.bf16 ? rotation_rows<uint16_t> : rotation_rows<float>)(job, begin, end);
}

void gate(const GateJob& job, size_t begin, size_t end) {
    constexpr Activation SILU = Activation::silu, GELU = Activation::gelu_tanh;
    if (job.activation == SILU)
        (job.bf16 ? gate_rows<uint16_t, SILU> : gate_rows<float, SILU>)(job, begin, end);
    else
        (job.bf16 ? gate_rows<uint16_t, GELU> : gate_rows<float, GELU>)(job, begin, end);
}

void gate_gradient(const GateJob& job, size_t begin, size_t end) {
    constexpr Activation SILU = Activation::silu, GELU = Activation::gelu_tanh;
    if (job.activation == SILU)
        (job.bf16 ? gate_gradient_rows<uint16_t, SILU> : gate_gradient_rows<float, SILU>)(job, begin, end);
    else
        (job.bf16 ? gate_gradient_rows<uint16_t, GELU> : gate_gradient_rows<float, GELU>)(job, begin, end);
}

void loss(const LossJob& job, size_t begin, size_t end) {
    (job.bf16 ? loss_rows<uint16_t> : loss_rows<float>)(job, begin, end);
}

void add_scaled(const SumJob& job, size_t begin, size_t end) {
    (job.bf16 ? add_numbers<uint16_t> : add_numbers<float>)(job, begin, end);
}

double absolute_sum(const RoundJob& job, size_t begin, size_t end) {
    return job.bf16 ? absolute_sum_of((const uint16_t*)job.weight + begin, end - begin)
                    : absolute_sum_of((const float*)job.weight + begin, end - begin);
}

void round_ternary(const RoundJob& job, size_t begin, size_t end) {
    (job.bf16 ? round_numbers<uint16_t> : round_numbers<float>)(job, begin, end);
}

void adam(const AdamJob& job, size_t begin, size_t end) {
    (job.low ? adam_numbers<uint16_t> : adam_numbers<float>)(job, begin, end);
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
