// Functions of training for Python: checks torch's tensors, which are taken by DLPack without copying, then calls them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>

#include "training_functions.h"

namespace nb = nanobind;

namespace riyaz {

void bind_training_functions(nb::module_& m);

namespace {

using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Codes = nb::ndarray<int8_t, nb::c_contig, nb::device::cpu>;
using Lower = nb::ndarray<int16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const char* what) { throw std::invalid_argument(what); }

// Whether the numbers of x are bfloat16; refuses what is neither that nor float.
bool is_bf16(const Array& x) {
    if (x.dtype() == nb::dtype<float>()) return false;
    if (x.dtype().code != uint8_t(nb::dlpack::dtype_code::Bfloat) || x.dtype().bits != 16)
        refuse("neither float32 nor bfloat16");
    return true;
}

// The data of y, which has the type and the number of numbers of x
void* like(const Array& y, const Array& x) {
    if (y.dtype() != x.dtype() || y.size() != x.size()) refuse("types or sizes differ");
    return y.data();
}

int width(const Array& x, size_t dimension) {
    if (x.ndim() <= dimension || x.shape(dimension) < 1 || x.shape(dimension) > 1 << 28) refuse("the shape is wrong");
    return int(x.shape(dimension));
}

NormJob norm_job(const Array& x, const Floats& weight, const Floats& scale, const Array& out) {
    NormJob job;
    job.C = width(x, 1), job.bf16 = is_bf16(x);
    if (x.ndim() != 2 || weight.size() != x.shape(1) || scale.size() != x.shape(0)) refuse("sizes differ");
    job.x = x.data(), job.weight = weight.data(), job.scale = scale.data(), job.out = like(out, x);
    return job;
}

void norm(const Array& x, const Floats& weight, float eps, const Floats& scale, const Array& out, int threads) {
    NormJob job = norm_job(x, weight, scale, out);
    job.eps = eps;
    nb::gil_scoped_release release;
    norm_forward(job, x.shape(0), threads);
}

void norm_gradient(const Array& x, const Floats& weight, const Floats& scale, const Array& grad, const Array& grad_x,
                   const std::optional<Floats>& grad_weight, int threads) {
    NormJob job = norm_job(x, weight, scale, grad_x);
    job.grad = like(grad, x);
    if (grad_weight && grad_weight->size() != weight.size()) refuse("sizes differ");
    float* sums = grad_weight ? grad_weight->data() : nullptr;
    nb::gil_scoped_release release;
    norm_backward(job, x.shape(0), sums, threads);
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

void gate(const Array& gate, const Array& up, const std::string& activation, const Array& out, int threads) {
    GateJob job;
    job.activation = activation_named(activation), job.bf16 = is_bf16(gate);
    job.gate = gate.data(), job.up = like(up, gate), job.out = like(out, gate);
    nb::gil_scoped_release release;
    gate_forward(job, gate.size(), threads);
}

void gate_gradient(const Array& gate, const Array& up, const Array& grad, const std::string& activation,
                   const Array& grad_gate, const Array& grad_up, int threads) {
    GateJob job;
    job.activation = activation_named(activation), job.bf16 = is_bf16(gate);
    job.gate = gate.data(), job.up = like(up, gate), job.grad = like(grad, gate);
    job.grad_gate = like(grad_gate, gate), job.grad_up = like(grad_up, gate);
    nb::gil_scoped_release release;
    gate_backward(job, gate.size(), threads);
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
          nb::arg("threads"), "x / rms(x) * weight: writes `out` (T, C), and 1 / rms(x) into `scale` (T,).");
    m.def("norm_gradient", &norm_gradient, nb::arg("x"), nb::arg("weight"), nb::arg("scale"), nb::arg("grad"),
          nb::arg("grad_x"), nb::arg("grad_weight").none(), nb::arg("threads"),
          "Writes the gradients of x (T, C) and, unless None, of the weight (C,) in float32.");
    m.def("rotation", &rotation, nb::arg("x"), nb::arg("cos"), nb::arg("sin"), nb::arg("back"), nb::arg("out"),
          nb::arg("threads"), "Writes the heads of x (T, H, D) turned by (T, 1, D), or back, into `out`.");
    m.def("gate", &gate, nb::arg("gate"), nb::arg("up"), nb::arg("activation"), nb::arg("out"), nb::arg("threads"),
          "Writes activation(gate) * up into `out`; the activation is silu or gelu_tanh.");
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
