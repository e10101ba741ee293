#include "training/functions.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "training/team.h"

namespace riyaz {
namespace {

constexpr size_t PART = 1 << 14;            // numbers of a tensor that one thread takes at a time
constexpr size_t LEAST_ROWS = 32;           // of a part of the norm's backward pass, which has C sums of its own
constexpr size_t SMALL = size_t(2) * PART;  // up to so many numbers one thread computes alone

// Calls work(part, begin, end) for parts of `each` of `count` things, each of `size` numbers.
template <class Work>
void in_parts(size_t count, size_t each, size_t size, int threads, const Work& work) {
    const int parts = int((count + each - 1) / each);
    share(parts, count * size <= SMALL ? 1 : threads,
          [&](int part, int) { work(size_t(part), part * each, std::min(count, (part + 1) * each)); });
}

size_t rows_of_part(size_t size) { return std::max<size_t>(1, PART / std::max<size_t>(1, size)); }

}  // namespace

void norm_forward(const NormJob& job, size_t T, int threads) {
    in_parts(T, rows_of_part(job.C), job.C, threads,
             [&](size_t, size_t begin, size_t end) { kernels().norm(job, begin, end); });
}

void norm_backward(const NormJob& job, size_t T, float* grad_weight, int threads) {
    const size_t each = std::max(LEAST_ROWS, rows_of_part(job.C)), C = job.C;
    std::vector<float> sums(grad_weight ? (T + each - 1) / each * C : 0);
    in_parts(T, each, C, threads, [&](size_t part, size_t begin, size_t end) {
        kernels().norm_gradient(job, begin, end, grad_weight ? sums.data() + part * C : nullptr);
    });
    if (!grad_weight) return;
    std::fill(grad_weight, grad_weight + C, 0.0f);
    for (size_t at = 0; at < sums.size(); at += C) kernels().add_to(grad_weight, sums.data() + at, int(C));
}

void rotate_all(const RotateJob& job, size_t T, int threads) {
    const size_t size = size_t(job.H) * job.D;
    in_parts(T, rows_of_part(size), size, threads,
             [&](size_t, size_t begin, size_t end) { kernels().rotation(job, begin, end); });
}

void gate_forward(const GateJob& job, size_t T, int threads) {
    in_parts(T, rows_of_part(job.C), job.C, threads,
             [&](size_t, size_t begin, size_t end) { kernels().gate(job, begin, end); });
}

void gate_backward(const GateJob& job, size_t T, int threads) {
    in_parts(T, rows_of_part(job.C), job.C, threads,
             [&](size_t, size_t begin, size_t end) { kernels().gate_gradient(job, begin, end); });
}

void add_scaled(const SumJob& job, size_t count, int threads) {
    in_parts(count, PART, 1, threads, [&](size_t, size_t begin, size_t end) { kernels().add_scaled(job, begin, end); });
}

void adam_step(const AdamJob& job, size_t count, int threads) {
    in_parts(count, PART, 1, threads, [&](size_t, size_t begin, size_t end) { kernels().adam(job, begin, end); });
}

float ternary_codes(RoundJob job, size_t count, float least, int threads) {
    std::vector<double> sums((count + PART - 1) / PART);
    in_parts(count, PART, 1, threads,
             [&](size_t part, size_t begin, size_t end) { sums[part] = kernels().absolute_sum(job, begin, end); });
    double sum = 0;
    for (const double each : sums) sum += each;
    const float mean = float(sum / double(count)), scale = mean < least ? least : mean;
    job.inverse = 1 / scale;
    in_parts(count, PART, 1, threads,
             [&](size_t, size_t begin, size_t end) { kernels().round_ternary(job, begin, end); });
    return scale;
}

double loss_of(const LossJob& job, size_t N, int threads) {
    std::vector<double> nats(N);
    LossJob all = job;
    all.nats = nats.data();
    in_parts(N, rows_of_part(job.V), job.V, threads,
             [&](size_t, size_t begin, size_t end) { kernels().loss(all, begin, end); });
    double sum = 0;
    for (const double each : nats) sum += each;
    return sum;
}

}  // namespace riyaz
