// Functions of training for Python: checks torch's tensors, which are taken by DLPack without copying, then calls them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bindings/tensor.h"
#include "simd/numbers.h"
#include "training/functions.h"

namespace nb = nanobind;

namespace riyaz {

void bind_training_functions(nb::module_& m);

namespace {

using Floats = Numbers<float, 1>;
using Codes = Numbers<int8_t, -1>;
using Lower = Numbers<int16_t, 1>;
using Labels = Numbers<int64_t, 1>;

[[noreturn]] void refuse(const char* what) { throw std::invalid_argument(what); }

// The data of y, which has the type and the number of numbers of x
template <class X>
void* like(const Array& y, const X& x) {
    if (y.dtype() != x.dtype() || y.size() != x.size()) refuse("types or sizes differ");
    return y.data();
}

template <class X>
int width(const X& x, size_t dimension) {
    if (x.ndim() <= dimension || x.shape(dimension) < 1 || x.shape(dimension) > 1 << 28) refuse("the shape is wrong");
    return int(x.shape(dimension));
}

// The numbers of a norm's weight, which may have another type than its inputs
std::vector<float> widened(const Array& weight) {
    const bool bf16 = is_bf16(weight);
    std::vector<float> numbers(weight.size());
    for (size_t i = 0; i < numbers.size(); i++)
        numbers[i] = bf16 ? from_bf16(((const uint16_t*)weight.data())[i]) : ((const float*)weight.data())[i];
    return numbers;
}

// x (..., C); returns the number of its rows too
std::pair<NormJob, size_t> norm_job(const Array& x, const std::vector<float>& weight, const Floats& scale,
                                    const Array& out) {
    NormJob job;
    if (!x.ndim()) refuse("x has no rows");
    job.C = width(x, x.ndim() - 1), job.bf16 = is_bf16(x);
    const size_t rows = x.size() / size_t(job.C);
    if (weight.size() != size_t(job.C) || scale.size() != rows) refuse("sizes differ");
    job.x = x.data(), job.weight = weight.data(), job.scale = scale.data(), job.out = like(out, x);
    return {job, rows};
}

void norm(const Array& x, const Array& weight, float eps, const Floats& scale, const Array& out, int threads) {
    const std::vector<float> numbers = widened(weight);
    auto [job, rows] = norm_job(x, numbers, scale, out);
    job.eps = eps;
    nb::gil_scoped_release release;
    norm_forward(job, rows, threads);
}

void norm_gradient(const Array& x, const Array& weight, const Floats& scale, const Array& grad, const Array& grad_x,
                   const std::optional<Array>& grad_weight, int threads) {
    const std::vector<float> numbers = widened(weight);
    auto [job, rows] = norm_job(x, numbers, scale, grad_x);
    job.grad = like(grad, x);
    std::vector<float> sums(grad_weight ? numbers.size() : 0);
    void* to = grad_weight ? like(*grad_weight, weight) : nullptr;
    const bool bf16 = is_bf16(weight);
    nb::gil_scoped_release release;
    norm_backward(job, rows, to ? sums.data() : nullptr, threads);
    for (size_t i = 0; i < sums.size(); i++) {
        if (bf16)
            ((uint16_t*)to)[i] = to_bf16(sums[i]);
        else
            ((float*)to)[i] = sums[i];
    }
}

void rotation(const Array& x, const Array& cos, const Array& sin, bool back, const Array& out, int threads) {
    RotateJob job;
    job.H = width(x, 1), job.D = width(x, 2), job.back = back, job.bf16 = is_bf16(x);
    if (x.ndim() != 3 || job.D % 2 || cos.size() != x.shape(0) * x.shape(2) || cos.dtype() != x.dtype())
        refuse("types or sizes differ");
    job.x = x.data(), job.cos = cos.data(), job.sin = like(sin, cos), job.out = like(out, x);
    nb::gil_scoped_release release;
    rotate_all(job, x.shape(0), threads);
}

Activation activation_named(const std::string& name) {
    if (name != "silu" && name != "gelu_tanh") refuse("no such activation");
    return name == "silu" ? Activation::silu : Activation::gelu_tanh;
}

// The numbers from one row of x to the next; y has them too, and the type and the shape.
size_t row_of(const Rows& x, const Rows& y) {
    const size_t T = x.shape(0), C = x.shape(1);
    if (y.shape(0) != T || y.shape(1) != C || x.dtype() != y.dtype()) refuse("types or sizes differ");
    if (C > 1 && (x.stride(1) != 1 || y.stride(1) != 1)) refuse("rows are not contiguous");
    if (T < 2) return C;
    if (x.stride(0) != y.stride(0) || x.stride(0) < int64_t(C)) refuse("rows lie differently");
    return size_t(x.stride(0));
}

GateJob gate_job(const Rows& gate, const Rows& up, const std::string& activation) {
    GateJob job;
    job.activation = activation_named(activation), job.bf16 = is_bf16(gate);
    job.row = row_of(gate, up), job.C = width(gate, 1), job.gate = gate.data(), job.up = up.data();
    return job;
}

void gate(const Rows& gate, const Rows& up, const std::string& activation, const Array& out, int threads) {
    GateJob job = gate_job(gate, up, activation);
    job.out = like(out, gate);
    nb::gil_scoped_release release;
    gate_forward(job, gate.shape(0), threads);
}

void gate_gradient(const Rows& gate, const Rows& up, const Array& grad, const std::string& activation,
                   const Rows& grad_gate, const Rows& grad_up, int threads) {
    GateJob job = gate_job(gate, up, activation);
    job.grad = like(grad, gate), job.grad_row = row_of(grad_gate, grad_up);
    if (grad_gate.shape(0) != gate.shape(0) || grad_gate.shape(1) != gate.shape(1) || grad_gate.dtype() != gate.dtype())
        refuse("types or sizes differ");
    job.grad_gate = grad_gate.data(), job.grad_up = grad_up.data();
    nb::gil_scoped_release release;
    gate_backward(job, gate.shape(0), threads);
}

void add(const Floats& total, const Array& x, float factor, int threads) {
    if (x.size() != total.size()) refuse("sizes differ");
    const SumJob job = {total.data(), x.data(), factor, is_bf16(x)};
    nb::gil_scoped_release release;
    add_scaled(job, total.size(), threads);
}

float round_to_ternary(const Array& weight, const Codes& codes, float least, int threads) {
    if (codes.size() != weight.size() || !codes.size()) refuse("sizes differ");
    const RoundJob job = {weight.data(), codes.data(), 0, is_bf16(weight)};
    nb::gil_scoped_release release;
    return ternary_codes(job, weight.size(), least, threads);
}

void adam(const Array& weight, const Array& mean, const Floats& square, const Floats& grad,
          const std::optional<Lower>& low, float factor, float beta1, float beta2, float keep, float size, float root,
          float eps, int threads) {
    const size_t count = weight.size();
    AdamJob job;
    job.weight = weight.data(), job.mean = like(mean, weight), job.square = square.data(), job.grad = grad.data();
    if (square.size() != count || grad.size() != count || (low && low->size() != count)) refuse("sizes differ");
    if (is_bf16(weight) != low.has_value()) refuse("bfloat16 weights have lower bits, float32 ones none");
    job.low = low ? low->data() : nullptr;
    job.factor = factor, job.beta1 = beta1, job.beta2 = beta2, job.keep = keep;
    job.size = size, job.root = root, job.eps = eps;
    nb::gil_scoped_release release;
    adam_step(job, count, threads);
}

double loss(const Array& logits, const Labels& labels, bool gradient, int threads) {
    LossJob job;
    job.V = width(logits, 1), job.bf16 = is_bf16(logits), job.gradient = gradient;
    if (logits.ndim() != 2 || labels.size() != logits.shape(0)) refuse("sizes differ");
    for (size_t i = 0; i < labels.size(); i++)
        if (labels.data()[i] < 0 || labels.data()[i] >= job.V) refuse("a label outside the vocabulary");
    job.logits = logits.data(), job.labels = labels.data();
    nb::gil_scoped_release release;
    return loss_of(job, labels.size(), threads);
}

}  // namespace

void bind_training_functions(nb::module_& m) {
    m.def("norm", &norm, nb::arg("x"), nb::arg("weight"), nb::arg("eps"), nb::arg("scale"), nb::arg("out"),
          nb::arg("threads"),
          "x / rms(x) * weight: writes `out` (..., C), and 1 / rms(x) of each row into `scale` (T,).");
    m.def("norm_gradient", &norm_gradient, nb::arg("x"), nb::arg("weight"), nb::arg("scale"), nb::arg("grad"),
          nb::arg("grad_x"), nb::arg("grad_weight").none(), nb::arg("threads"),
          "Writes the gradients of x (..., C) and, unless None, of the weight (C,).");
    m.def("rotation", &rotation, nb::arg("x"), nb::arg("cos"), nb::arg("sin"), nb::arg("back"), nb::arg("out"),
          nb::arg("threads"), "Writes the heads of x (T, H, D) turned by (T, 1, D), or back, into `out`.");
    m.def("gate", &gate, nb::arg("gate"), nb::arg("up"), nb::arg("activation"), nb::arg("out"), nb::arg("threads"),
          "Writes activation(gate) * up into `out` (T, C); the activation is silu or gelu_tanh.");
    m.def("gate_gradient", &gate_gradient, nb::arg("gate"), nb::arg("up"), nb::arg("grad"), nb::arg("activation"),
          nb::arg("grad_gate"), nb::arg("grad_up"), nb::arg("threads"), "Writes its gradients.");
    m.def("add_scaled", &add, nb::arg("total"), nb::arg("x"), nb::arg("factor"), nb::arg("threads"),
          "total += factor * x in place; total in float32, x in float32 or bfloat16.");
    m.def("ternary_codes", &round_to_ternary, nb::arg("weight"), nb::arg("codes"), nb::arg("least"), nb::arg("threads"),
          "Writes round(weight / scale), at most 1 in size, into `codes`; returns the scale: the mean of the weights' "
          "sizes, at least `least`.");
    m.def("adam", &adam, nb::arg("weight"), nb::arg("mean"), nb::arg("square"), nb::arg("grad"), nb::arg("low").none(),
          nb::arg("factor"), nb::arg("beta1"), nb::arg("beta2"), nb::arg("keep"), nb::arg("size"), nb::arg("root"),
          nb::arg("eps"), nb::arg("threads"),
          "A step of AdamW in place; `grad` becomes 0. Weights and means are float32, or bfloat16 with the lower bits "
          "of the weights in `low`.");
    m.def("loss", &loss, nb::arg("logits"), nb::arg("labels"), nb::arg("gradient"), nb::arg("threads"),
          "The sum of -log softmax(logits)[label], in nats; with `gradient` it replaces the logits (N, V).");
}

}  // namespace riyaz
