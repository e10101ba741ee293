// What Python may call in training: torch's tensors are taken by DLPack, without copying and without torch's headers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "model.h"
#include "training.h"
#include "training_codes.h"

namespace nb = nanobind;

namespace riyaz {

void bind_training(nb::module_& m);

namespace {

using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

bool is(const Array& x, nb::dlpack::dtype_code code, int bits) {
    return x.dtype().code == uint8_t(code) && x.dtype().bits == bits && x.dtype().lanes == 1;
}

// The data of x, which has the type and the shape (T, heads, D), or without D
void* data(const Array& x, bool bf16, int T, int heads, int D) {
    using nb::dlpack::dtype_code;
    if (!is(x, bf16 ? dtype_code::Bfloat : dtype_code::Float, bf16 ? 16 : 32)) refuse("types differ");
    if (x.ndim() != (D ? 3 : 2) || int(x.shape(0)) != T || int(x.shape(1)) != heads || (D && int(x.shape(2)) != D))
        refuse("sizes differ");
    return x.data();
}

PackedAttention job_of(const Array& q, const Array& k, const Array& v, const Array& out, const Array& sums,
                       const std::vector<int>& rows, int prefix, int window) {
    PackedAttention job;
    if (q.ndim() != 3 || k.ndim() != 3) refuse("q, k and v have three dimensions");
    const size_t T = q.shape(0), H = q.shape(1), K = k.shape(1), D = q.shape(2);
    if (T > 1 << 28 || D > MOST_HEAD || D < 8 || D % 8) refuse("head sizes are multiples of 8 up to 256");
    if (!K || H % K || H / K > MOST_LINES) refuse("heads do not divide");
    if (prefix < 0 || window < 0) refuse("a prefix or window below 0");
    size_t tokens = size_t(prefix);
    for (const int length : rows) {
        if (length < 1) refuse("a row without tokens");
        tokens += size_t(length);
    }
    if (tokens != T) refuse("the rows have other tokens than q");
    job.bf16 = is(q, nb::dlpack::dtype_code::Bfloat, 16);
    job.H = int(H), job.K = int(K), job.D = int(D), job.prefix = prefix, job.window = window;
    job.q = data(q, job.bf16, int(T), job.H, job.D), job.k = data(k, job.bf16, int(T), job.K, job.D);
    job.v = data(v, job.bf16, int(T), job.K, job.D), job.out = data(out, job.bf16, int(T), job.H, job.D);
    job.sums = (float*)data(sums, false, int(T), job.H, 0);
    return job;
}

void forward(const Array& q, const Array& k, const Array& v, const Array& out, const Array& sums,
             const std::vector<int>& rows, int prefix, int window, int threads) {
    const PackedAttention job = job_of(q, k, v, out, sums, rows, prefix, window);
    nb::gil_scoped_release release;
    attention_forward(job, rows, threads);
}

void backward(const Array& grad, const Array& q, const Array& k, const Array& v, const Array& out, const Array& sums,
              const Array& grad_q, const Array& grad_k, const Array& grad_v, const std::vector<int>& rows, int prefix,
              int window, int threads) {
    PackedAttention job = job_of(q, k, v, out, sums, rows, prefix, window);
    const int T = int(q.shape(0));
    job.grad = data(grad, job.bf16, T, job.H, job.D), job.grad_q = data(grad_q, job.bf16, T, job.H, job.D);
    job.grad_k = data(grad_k, job.bf16, T, job.K, job.D), job.grad_v = data(grad_v, job.bf16, T, job.K, job.D);
    nb::gil_scoped_release release;
    attention_backward(job, rows, threads);
}

void product_of_codes(const Matrix& matrix, const Array& x, const Array& y, bool add, int threads) {
    using nb::dlpack::dtype_code;
    const Weights& w = matrix.weights;
    if (w.format != Format::int8) refuse("the weights are not int8");
    if (x.ndim() != 2 || y.ndim() != 2 || x.shape(0) > 1 << 28 || x.shape(1) < 1 || x.shape(1) > 1 << 28)
        refuse("x and y are matrices");
    const int cols = int(x.shape(1));
    if (padded_cols(w.format, cols) != w.cols || y.shape(0) != x.shape(0) || int(y.shape(1)) != w.rows)
        refuse("sizes differ");
    const bool bf16 = is(x, dtype_code::Bfloat, 16);
    if ((!bf16 && !is(x, dtype_code::Float, 32)) || x.dtype() != y.dtype()) refuse("types differ");
    nb::gil_scoped_release release;
    code_product(kernels(), w, cols, x.data(), x.shape(0), bf16, y.data(), add, threads);
}

}  // namespace

void bind_training(nb::module_& m) {
    m.def("attention", &forward, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"), nb::arg("sums"),
          nb::arg("rows"), nb::arg("prefix"), nb::arg("window"), nb::arg("threads"),
          "Causal attention of packed rows: writes `out` (T, H, D) and the log-sum-exp of scores, `sums` (T, H).");
    m.def("attention_backward", &backward, nb::arg("grad"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"),
          nb::arg("sums"), nb::arg("grad_q"), nb::arg("grad_k"), nb::arg("grad_v"), nb::arg("rows"), nb::arg("prefix"),
          nb::arg("window"), nb::arg("threads"), "Its gradients: writes `grad_q` (T, H, D), `grad_k` and `grad_v`.");
    m.def("code_product", &product_of_codes, nb::arg("weights"), nb::arg("x"), nb::arg("y"), nb::arg("add"),
          nb::arg("threads"),
          "Writes the products of x (T, cols) and an int8 matrix (rows, cols), by 8-bit codes of x, "
          "into `y` (T, rows), or with `add` adds them to it.");
}

}  // namespace riyaz
