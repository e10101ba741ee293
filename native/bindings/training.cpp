// What Python may call in training: torch's tensors are taken by DLPack, without copying and without torch's headers.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

#include "bindings/tensor.h"
#include "kernels/kernels.h"
#include "training/attention.h"
#include "training/codes.h"
#include "training/dense.h"

namespace nb = nanobind;

namespace riyaz {

void bind_training(nb::module_& m);

namespace {

using Matrices = std::vector<const FrozenCodes*>;
using Arrays = std::vector<Array>;
using Floats = Numbers<float, 2>;

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

// x as lines; it has this type and shape
template <class X>
MatrixView lines(const X& x, bool bf16, int rows, int cols) {
    if (is_bf16(x) != bf16) refuse("types differ");
    if (x.ndim() != 2 || int(x.shape(0)) != rows || int(x.shape(1)) != cols) refuse("sizes differ");
    const bool apart = rows > 1 && x.stride(0) < cols;
    if (rows > 0 && ((cols > 1 && x.stride(1) != 1) || apart)) refuse("rows are not contiguous");
    return {x.data(), rows > 1 ? size_t(x.stride(0)) : size_t(cols), bf16};
}

// The layers of x (T, in), whose matrices are W or, with `turned`, Wᵀ; y (T, out) of each
LoraJob lora_job(const Matrices& matrices, const Array& x, const Arrays& a, const Arrays& b,
                 const std::vector<float>& scales, const std::vector<Rows>& y, const Array& low, bool turned) {
    LoraJob job = {};
    if (x.ndim() != 2) refuse("x is no matrix");
    if (x.shape(0) > 1 << 24 || x.shape(1) < 1 || x.shape(1) > 1 << 24) refuse("a size of x is out of range");
    const size_t count = matrices.size();
    if (!count || a.size() != count || b.size() != count || scales.size() != count || y.size() != count)
        refuse("the layers have other tensors");
    const bool bf16 = is_bf16(x);
    job.T = int(x.shape(0)), job.in = int(x.shape(1)), job.x = lines(x, bf16, job.T, job.in);
    for (size_t i = 0; i < count; i++) {
        if (!matrices[i]) refuse("a matrix is none");
        const FrozenCodes& w = *matrices[i];
        if (a[i].ndim() != 2 || b[i].ndim() != 2 || a[i].shape(0) < 1 || a[i].shape(0) > 1 << 16)
            refuse("A or B is no matrix, or the rank is out of range");
        const int rank = int(a[i].shape(0)), out = int(b[i].shape(0)), rows = turned ? job.in : out;
        if (w.rows != rows || w.cols != (turned ? out : job.in)) refuse("sizes differ");
        job.layers.push_back({&w, out, rank, scales[i], lines(a[i], bf16, rank, job.in), lines(b[i], bf16, out, rank),
                              lines(y[i], bf16, job.T, out), nullptr, nullptr});
    }
    job.low = (void*)lines(low, bf16, job.T, lora_lanes(job)).data;
    return job;
}

void lora(const Matrices& matrices, const Array& x, const Arrays& a, const Arrays& b, const std::vector<float>& scales,
          const std::vector<Rows>& y, const Array& low, int threads) {
    const LoraJob job = lora_job(matrices, x, a, b, scales, y, low, false);
    nb::gil_scoped_release release;
    lora_forward(kernels(), job, threads);
}

void lora_gradient(const Matrices& matrices, const Array& x, const Arrays& a, const Arrays& b,
                   const std::vector<float>& scales, const std::vector<Rows>& grads, const Array& low,
                   const std::optional<Array>& grad_x, const std::vector<Floats>& grad_a,
                   const std::vector<Floats>& grad_b, int threads) {
    LoraJob job = lora_job(matrices, x, a, b, scales, grads, low, true);
    if (grad_a.size() != a.size() || grad_b.size() != b.size()) refuse("the layers have other tensors");
    for (size_t i = 0; i < a.size(); i++) {
        LoraLayer& layer = job.layers[i];
        layer.grad_a = (float*)lines(grad_a[i], false, layer.rank, job.in).data;
        layer.grad_b = (float*)lines(grad_b[i], false, layer.out, layer.rank).data;
    }
    if (grad_x) job.grad_x = (void*)lines(*grad_x, job.x.bf16, job.T, job.in).data;
    nb::gil_scoped_release release;
    lora_backward(kernels(), job, threads);
}

void product_of_codes(const FrozenCodes& w, const Array& x, const Array& y, int threads) {
    if (x.ndim() != 2 || x.shape(0) > 1 << 24) refuse("x is no matrix, or has too many rows");
    const bool bf16 = is_bf16(x);
    const int T = int(x.shape(0));
    const MatrixView from = lines(x, bf16, T, w.cols), to = lines(y, bf16, T, w.rows);
    nb::gil_scoped_release release;
    code_product(kernels(), w, from, T, to, threads);
}

using Sums = std::vector<std::optional<Floats>>;

// The linears of x (T, in), with weights W; y (T, out) of each
DenseJob dense_job(const Array& x, const Arrays& weights, const std::vector<Rows>& y) {
    DenseJob job = {};
    if (!has_dense(kernels())) refuse("these kernels have no products of bfloat16 weights");
    if (x.ndim() != 2 || x.shape(0) > 1 << 24 || x.shape(1) < 2 || x.shape(1) > 1 << 24) refuse("x is no such matrix");
    job.T = int(x.shape(0)), job.in = int(x.shape(1)), job.x = lines(x, true, job.T, job.in);
    if (weights.empty() || weights.size() != y.size()) refuse("the layers have other tensors");
    for (size_t i = 0; i < y.size(); i++) {
        if (weights[i].ndim() != 2 || weights[i].shape(0) > 1 << 28) refuse("a weight is no matrix");
        const int out = int(weights[i].shape(0));
        job.layers.push_back(
            {lines(weights[i], true, out, job.in), out, nullptr, lines(y[i], true, job.T, out), nullptr, 0, {}, {}});
        if (job.in % 2 || out % 2 || job.layers[i].y.row % 2) refuse("a size is odd");
    }
    return job;
}

void add_biases(DenseJob& job, const std::vector<std::optional<Array>>& biases) {
    if (biases.size() != job.layers.size()) refuse("the layers have other tensors");
    for (size_t i = 0; i < biases.size(); i++) {
        if (!biases[i]) continue;
        DenseLayer& layer = job.layers[i];
        if (!is_bf16(*biases[i]) || biases[i]->size() != size_t(layer.out)) refuse("a bias does not fit");
        layer.bias = (const uint16_t*)biases[i]->data();
    }
}

void dense(const Array& x, const Arrays& weights, const std::vector<std::optional<Array>>& biases,
           const std::vector<Rows>& y, int threads) {
    DenseJob job = dense_job(x, weights, y);
    add_biases(job, biases);
    nb::gil_scoped_release release;
    dense_forward(kernels(), job, threads);
}

void dense_gradient(const Array& x, const Arrays& weights, const std::vector<Rows>& grads,
                    const std::optional<Array>& grad_x, const Sums& totals, int threads) {
    DenseJob job = dense_job(x, weights, grads);
    if (totals.size() != weights.size()) refuse("the layers have other tensors");
    for (size_t i = 0; i < totals.size(); i++) {
        if (!totals[i]) continue;
        job.layers[i].total = (float*)lines(*totals[i], false, job.layers[i].out, job.in).data;
        for (size_t j = 0; j < i; j++)
            if (job.layers[j].total == job.layers[i].total) refuse("two layers share a sum");
    }
    if (grad_x) job.grad_x = lines(*grad_x, true, job.T, job.in);
    nb::gil_scoped_release release;
    dense_backward(kernels(), job, threads);
}

// Layers with a LoRA each; `low` (T, lanes) has the columns of one after those of the other
DenseJob dense_lora_job(const Array& x, const Arrays& weights, const Arrays& a, const Arrays& b,
                        const std::vector<float>& scales, const std::vector<Rows>& y, const Array& low) {
    if (!has_tiles(kernels())) refuse("these kernels have no tiles");
    DenseJob job = dense_job(x, weights, y);
    const size_t count = weights.size();
    if (a.size() != count || b.size() != count || scales.size() != count) refuse("the layers have other tensors");
    int lanes = 0;
    for (const Array& matrix : a) {
        if (matrix.ndim() != 2 || matrix.shape(0) < 2 || matrix.shape(0) > 1 << 16 || matrix.shape(0) % 2)
            refuse("a rank is out of range or odd");
        lanes += int(matrix.shape(0));
    }
    const MatrixView all = lines(low, true, job.T, lanes);
    int lane = 0;
    for (size_t i = 0; i < count; i++) {
        DenseLayer& layer = job.layers[i];
        layer.rank = int(a[i].shape(0)), layer.scale = scales[i], layer.low = all.from(0, size_t(lane));
        layer.a = lines(a[i], true, layer.rank, job.in), layer.b = lines(b[i], true, layer.out, layer.rank);
        lane += layer.rank;
    }
    return job;
}

void dense_lora(const Array& x, const Arrays& weights, const std::vector<std::optional<Array>>& biases, const Arrays& a,
                const Arrays& b, const std::vector<float>& scales, const std::vector<Rows>& y, const Array& low,
                int threads) {
    DenseJob job = dense_lora_job(x, weights, a, b, scales, y, low);
    add_biases(job, biases);
    nb::gil_scoped_release release;
    dense_forward(kernels(), job, threads);
}

void dense_lora_gradient(const Array& x, const Arrays& weights, const Arrays& a, const Arrays& b,
                         const std::vector<float>& scales, const std::vector<Rows>& grads, const Array& low,
                         const std::optional<Array>& grad_x, const std::vector<Floats>& grad_a,
                         const std::vector<Floats>& grad_b, int threads) {
    DenseJob job = dense_lora_job(x, weights, a, b, scales, grads, low);
    if (grad_a.size() != a.size() || grad_b.size() != b.size()) refuse("the layers have other tensors");
    for (size_t i = 0; i < a.size(); i++) {
        DenseLayer& layer = job.layers[i];
        layer.grad_a = (float*)lines(grad_a[i], false, layer.rank, job.in).data;
        layer.grad_b = (float*)lines(grad_b[i], false, layer.out, layer.rank).data;
    }
    if (grad_x) job.grad_x = lines(*grad_x, true, job.T, job.in);
    nb::gil_scoped_release release;
    dense_backward(kernels(), job, threads);
}

}  // namespace

void bind_training(nb::module_& m) {
    m.def("attention", &forward, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"), nb::arg("sums"),
          nb::arg("rows"), nb::arg("prefix"), nb::arg("window"), nb::arg("threads"),
          "Causal attention of packed rows: writes `out` (T, H, D) and the log-sum-exp of scores, `sums` (T, H).");
    m.def("attention_backward", &backward, nb::arg("grad"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"),
          nb::arg("sums"), nb::arg("grad_q"), nb::arg("grad_k"), nb::arg("grad_v"), nb::arg("rows"), nb::arg("prefix"),
          nb::arg("window"), nb::arg("threads"), "Its gradients: writes `grad_q` (T, H, D), `grad_k` and `grad_v`.");
    nb::class_<FrozenCodes>(m, "FrozenCodes", "A frozen matrix (rows, cols) in codes of 8 bits, for training.")
        .def(
            "__init__",
            [](FrozenCodes* self, int rows, int cols) {
                if (rows < 1 || cols < 1 || rows > 1 << 28 || cols > 1 << 24) refuse("a size is out of range");
                new (self) FrozenCodes(rows, cols);
            },
            nb::arg("rows"), nb::arg("cols"))
        .def(
            "fill",
            [](FrozenCodes& self, int first, const Floats& weights, int threads) {
                const bool rows = first >= 0 && size_t(first) + weights.shape(0) <= size_t(self.rows);
                if (!rows || int(weights.shape(1)) != self.cols) refuse("the shape does not fit");
                nb::gil_scoped_release release;
                return self.fill(first, int(weights.shape(0)), weights.data(), threads);
            },
            nb::arg("first"), nb::arg("weights"), nb::arg("threads"),
            "Encodes rows from `first` on; False where a weight is not a finite number.");
    m.def(
        "has_dense", [] { return has_dense(kernels()); },
        "Whether `dense` and `dense_gradient` are there: training multiplies bfloat16 in pairs or in tiles.");
    m.def(
        "has_tiles", [] { return has_tiles(kernels()); },
        "Whether these multiply in AMX's tiles, so that `dense_lora` and `dense_lora_gradient` are there too.");
    m.def("dense", &dense, nb::arg("x"), nb::arg("weights"), nb::arg("biases"), nb::arg("y"), nb::arg("threads"),
          "Writes x Wᵀ + bias of each weight (out, in), all bfloat16 and even, into its `y` (T, out), which overlaps "
          "nothing else; a bias may be None.");
    m.def("dense_gradient", &dense_gradient, nb::arg("x"), nb::arg("weights"), nb::arg("grads"),
          nb::arg("grad_x").none(), nb::arg("totals"), nb::arg("threads"),
          "Its gradients from those of `y`: writes `grad_x` (T, in), which overlaps nothing else; and adds to "
          "`totals`, float32 or None.");
    m.def("dense_lora", &dense_lora, nb::arg("x"), nb::arg("weights"), nb::arg("biases"), nb::arg("a"), nb::arg("b"),
          nb::arg("scales"), nb::arg("y"), nb::arg("low"), nb::arg("threads"),
          "Writes scale · x Aᵀ of all layers into `low` (T, sum of ranks), and x Wᵀ + low Bᵀ + bias of each into its "
          "`y` (T, out).");
    m.def("dense_lora_gradient", &dense_lora_gradient, nb::arg("x"), nb::arg("weights"), nb::arg("a"), nb::arg("b"),
          nb::arg("scales"), nb::arg("grads"), nb::arg("low"), nb::arg("grad_x").none(), nb::arg("grad_a"),
          nb::arg("grad_b"), nb::arg("threads"),
          "Its gradients: writes `grad_x` (T, in) and adds to `grad_a` and `grad_b`, float32.");
    m.def("code_product", &product_of_codes, nb::arg("weights"), nb::arg("x"), nb::arg("y"), nb::arg("threads"),
          "Writes the products of x (T, cols) and a frozen matrix (rows, cols), by 8-bit codes of x, into `y` (T, "
          "rows).");
    m.def(
        "lora", &lora, nb::arg("matrices"), nb::arg("x"), nb::arg("a"), nb::arg("b"), nb::arg("scales"), nb::arg("y"),
        nb::arg("low"), nb::arg("threads"),
        "Writes x Wᵀ + scale (x Aᵀ) Bᵀ of each layer into its `y` (T, out), by 8-bit codes of x and frozen matrices W; "
        "and scale · x Aᵀ of all, each padded to 16 columns, into `low`.");
    m.def("lora_gradient", &lora_gradient, nb::arg("matrices"), nb::arg("x"), nb::arg("a"), nb::arg("b"),
          nb::arg("scales"), nb::arg("grads"), nb::arg("low"), nb::arg("grad_x").none(), nb::arg("grad_a"),
          nb::arg("grad_b"), nb::arg("threads"),
          "Its gradients, with matrices Wᵀ: writes `grad_x` (T, in) and adds to `grad_a` and `grad_b`, float32.");
}

}  // namespace riyaz
