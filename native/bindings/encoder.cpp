// The encoder for Python: checks what comes from there, then calls it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "engine/encoder.h"
#include "simd/dispatch.h"

namespace nb = nanobind;

namespace riyaz {
namespace {

template <class T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Vectors = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

Vectors fresh(size_t rows, size_t cols, float*& data) {
    data = new float[rows * cols + 1]();
    return Vectors(data, {rows, cols}, nb::capsule(data, [](void* p) noexcept { delete[] (float*)p; }));
}

EncoderConfig config_from(nb::dict d) {
    EncoderConfig c;
    const auto number = [&](const char* name) { return nb::cast<int>(d[name]); };
    c.layers = number("layers"), c.hidden = number("hidden"), c.heads = number("heads"), c.inner = number("inner");
    c.vocabulary = number("vocabulary"), c.context = number("context");
    for (const int size : {c.layers, c.hidden, c.heads, c.inner, c.vocabulary, c.context})
        if (size < 1) refuse("a size is below 1");
    if (c.hidden % c.heads) refuse("heads do not divide");
    if (c.hidden / c.heads > MAX_HEAD) refuse("heads of more than " + std::to_string(MAX_HEAD) + " numbers");
    c.fp32 = nb::cast<bool>(d["fp32"]), c.eps = nb::cast<float>(d["eps"]);
    return c;
}

void set_matrix(Encoder& e, int layer, const std::string& name, const Matrix& matrix) {
    const int C = e.config.hidden, F = e.config.inner;
    EncoderLayer& own = e.layers.at(layer);
    const auto put = [&](Matrix& to, int rows, int cols) {
        const Weights& w = matrix.weights;
        const Format format = e.config.fp32 ? Format::fp32 : Format::bf16;
        if (w.rows != rows || w.cols != padded_cols(format, cols) || w.format != format) refuse(name + " does not fit");
        to = matrix;
    };
    if (name == "qkv")
        put(own.qkv, 3 * C, C);
    else if (name == "o")
        put(own.o, C, C);
    else if (name == "up")
        put(own.up, F, C);
    else if (name == "down")
        put(own.down, C, F);
    else
        refuse("unknown matrix " + name);
}

// Where a vector or table of floats goes, and its size; layer -1: outside the layers
std::pair<std::vector<float>*, size_t> floats_named(Encoder& e, int layer, const std::string& name) {
    const size_t C = e.config.hidden, F = e.config.inner;
    if (layer < 0) {
        if (name == "words") return {&e.words, e.config.vocabulary * C};
        if (name == "positions") return {&e.positions, e.config.context * C};
        if (name == "norm") return {&e.norm, C};
        if (name == "norm_bias") return {&e.norm_bias, C};
        refuse("unknown tensor " + name);
    }
    EncoderLayer& own = e.layers.at(layer);
    if (name == "qkv_bias") return {&own.qkv_bias, 3 * C};
    if (name == "o_bias") return {&own.o_bias, C};
    if (name == "up_bias") return {&own.up_bias, F};
    if (name == "down_bias") return {&own.down_bias, C};
    if (name == "attention_norm") return {&own.attention_norm, C};
    if (name == "attention_norm_bias") return {&own.attention_norm_bias, C};
    if (name == "output_norm") return {&own.output_norm, C};
    if (name == "output_norm_bias") return {&own.output_norm_bias, C};
    refuse("unknown tensor " + name);
}

void check_complete(Encoder& e) {
    for (const char* name : {"words", "positions", "norm", "norm_bias"})
        if (floats_named(e, -1, name).first->empty()) refuse(std::string(name) + " is missing");
    for (int layer = 0; layer < e.config.layers; layer++) {
        const EncoderLayer& own = e.layers[layer];
        if (!own.qkv || !own.o || !own.up || !own.down) refuse("a matrix is missing");
        for (const char* name : {"qkv_bias", "o_bias", "up_bias", "down_bias", "attention_norm", "attention_norm_bias",
                                 "output_norm", "output_norm_bias"})
            if (floats_named(e, layer, name).first->empty()) refuse(std::string(name) + " is missing");
    }
}

Vectors embed(Encoder& e, In<int32_t, 1> tokens, In<int32_t, 1> lengths) {
    check_complete(e);
    size_t total = 0;
    for (size_t i = 0; i < lengths.size(); i++) {
        if (lengths.data()[i] < 1 || lengths.data()[i] > e.config.context) refuse("a text's length");
        total += size_t(lengths.data()[i]);
    }
    if (total != tokens.size() || total > size_t(1) << 30) refuse("sizes differ");
    for (size_t i = 0; i < total; i++)
        if (tokens.data()[i] < 0 || tokens.data()[i] >= e.config.vocabulary)
            refuse("token " + std::to_string(tokens.data()[i]) + " is not in the vocabulary");
    float* out;
    Vectors vectors = fresh(lengths.size(), e.config.hidden, out);
    {
        nb::gil_scoped_release release;
        e.embed(tokens.data(), lengths.data(), int(lengths.size()), out);
    }
    return vectors;
}

}  // namespace

void bind_encoder(nb::module_& m) {
    m.def(
        "gelu_erf",
        [](const std::string& isa, In<float, 2> x, In<float, 1> bias) {
            if (bias.size() != x.shape(1)) refuse("sizes differ");
            float* out;
            Vectors found = fresh(x.shape(0), x.shape(1), out);
            std::copy_n(x.data(), x.size(), out);
            for (size_t row = 0; row < x.shape(0); row++)
                kernels_of(isa).gelu_erf(out + row * x.shape(1), bias.data(), int(x.shape(1)));
            return found;
        },
        "gelu(x + bias) of x (T, n), by the kernel of an instruction set.");

    nb::class_<Encoder>(m, "Encoder", "A BERT encoder: texts to unit vectors.")
        .def(
            "__init__",
            [](Encoder* self, nb::dict config, int threads, const std::string& isa) {
                new (self) Encoder(config_from(config), threads, isa.empty() ? kernels() : kernels_of(isa));
            },
            nb::arg("config"), nb::arg("threads"), nb::arg("isa") = "")
        .def(
            "set",
            [](Encoder& self, int layer, const std::string& name, const Matrix& matrix) {
                if (layer < 0 || layer >= self.config.layers) refuse("no such layer");
                set_matrix(self, layer, name, matrix);
            },
            "Set a matrix of a layer.")
        .def(
            "set",
            [](Encoder& self, int layer, const std::string& name, In<float, 1> values) {
                if (layer < -1 || layer >= self.config.layers) refuse("no such layer");
                const auto [to, size] = floats_named(self, layer, name);
                if (values.size() != size) refuse(name + " does not fit");
                to->assign(values.data(), values.data() + size);
            },
            "Set a bias, a norm or a flattened table of embeddings; layer -1: outside the layers.")
        .def("embed", &embed, nb::arg("tokens"), nb::arg("lengths"),
             "Unit vectors (n, C) of the texts that lie end to end in `tokens`.");
}

}  // namespace riyaz
