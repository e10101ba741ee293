// Packed matrices in Python: filled from floats and blocks, and multiplied by the kernels of any instruction set.
#include <nanobind/stl/vector.h>

#include <vector>

#include "bindings/bindings.h"
#include "engine/pack.h"
#include "simd/dispatch.h"

namespace riyaz {

Format format_named(const std::string& name) {
    if (name == "fp32") return Format::fp32;
    if (name == "bf16") return Format::bf16;
    if (name == "int8") return Format::int8;
    if (name == "int4") return Format::int4;
    if (name == "int4k") return Format::int4k;
    if (name == "int8row") return Format::int8row;
    if (name == "ternary") return Format::ternary;
    if (name == "trits") return Format::trits;
    refuse("unknown format " + name);
}

namespace {

std::string name_of(Format format) {
    const char* names[] = {"fp32", "bf16", "int8", "int4", "int4k", "int8row", "ternary", "trits"};
    return names[int(format)];
}

void check_rows(const Matrix& matrix, int first, size_t rows, size_t cols) {
    if (first < 0 || cols < 1) refuse("the shape does not fit");
    const size_t width = padded_cols(matrix.weights.format, int(cols));
    if (size_t(first) + rows > size_t(matrix.weights.rows) || width != size_t(matrix.weights.cols))
        refuse("the shape does not fit");
}

// The product of a packed matrix and floats (T, cols) with the kernels of one instruction set, for tests; `many` is
// the group of products with many tokens, 0 of those with few
nb::ndarray<nb::numpy, float, nb::ndim<2>> product(const std::string& isa, const Matrix& matrix, In<float, 2> x,
                                                   int many) {
    const Kernels& k = kernels_of(isa);
    const Weights& w = matrix.weights;
    const int T = int(x.shape(0)), C = int(x.shape(1)), cols = padded(w.cols, GROUP);
    if (padded_cols(w.format, C) != w.cols || T < 1) refuse("the shape does not fit");
    if (many && (!has_many_tokens(k, w.format) || (many != GROUP && many != MANY_TOKENS_GROUP)))
        refuse("no such product");
    const size_t lines = size_t(padded(T, 32)) + 1;
    std::vector<int8_t> codes(lines * cols), low(lines * cols);
    std::vector<float> scale(lines * cols / GROUP), sum(scale.size()), fp32(lines * cols);
    std::vector<int32_t> total(lines * cols / TERNARY);
    std::vector<uint16_t> bf16(lines * cols);
    Inputs in{cols, codes.data(), low.data(), scale.data(), sum.data(), total.data(), bf16.data(), fp32.data(), many};
    in.strips = bf16.data(), in.strip_rows = int(lines) - 1;
    std::vector<float> token_scale(lines);
    if (is_ternary(w.format))
        in.token_codes = codes.data(), in.token_scale = token_scale.data(), in.token_total = total.data();
    const auto inputs = is_ternary(w.format) ? k.ternary_inputs : many ? k.many_tokens_inputs : k.inputs;
    for (int t = 0; t < T; t++) inputs(x.data() + size_t(t) * C, C, in.from(t));
    nb::capsule owner;
    float* y = fresh<float>(size_t(T) * w.rows, owner);
    Matrix scratch(Format::fp32, 16, int(product_scratch(cols) / 64) + 32);
    if (is_ternary(w.format))
        k.ternary(w, 0, w.blocks(), in, T, y, w.rows, false, nullptr, scratch.bytes.get());
    else if (many)
        k.many_tokens(w, 0, w.blocks(), in, T, y, w.rows, false, scratch.bytes.get());
    else
        k.few_tokens(w, 0, w.blocks(), in, T, y, w.rows, false, nullptr, scratch.bytes.get());
    return nb::ndarray<nb::numpy, float, nb::ndim<2>>(y, {size_t(T), size_t(w.rows)}, owner);
}

}  // namespace

void bind_matrix(nb::module_& m) {
    m.def(
        "format_of", [](const std::string& type) { return name_of(format_of(type)); },
        "The format that a GGUF type is packed into.");
    m.def("has_minimum", &has_minimum, "Whether a GGUF type that is packed into int4 has a minimum beside the scale.");
    m.def(
        "product", &product, nb::arg("isa"), nb::arg("matrix"), nb::arg("x"), nb::arg("many") = 0,
        "x (T, cols) times the matrix: (T, rows), by the kernels of an instruction set; `many`: those for many tokens, "
        "with groups of so many columns, 32 or 64.");
    nb::class_<Matrix>(m, "Matrix", "A packed matrix of weights.")
        .def(
            "__init__",
            [](Matrix* self, const std::string& format, int rows, int cols, int group, bool minimum) {
                if (rows < 1 || cols < 1) refuse("a matrix has at least one row and one column");
                const Format form = format_named(format);
                if (is_ternary(form) ? group < 0 || group % TERNARY : group != 32 && group != 64 && group != 128)
                    refuse("groups have 32, 64 or 128 columns, of ternary weights a multiple of 16");
                if (form != Format::int4 && !is_ternary(form) && (group != 32 || !minimum))
                    refuse("int4 and ternary weights alone have other groups");
                new (self) Matrix(form, rows, cols, group, minimum);
            },
            nb::arg("format"), nb::arg("rows"), nb::arg("cols"), nb::arg("group") = GROUP, nb::arg("minimum") = true)
        .def(
            "fill",
            [](Matrix& self, int first, In<float, 2> values) {
                check_rows(self, first, values.shape(0), values.shape(1));
                nb::gil_scoped_release release;
                return pack(self, first, int(values.shape(0)), values.data(), int(values.shape(1)));
            },
            "Write rows from floats (rows, cols), rounded to the format; returns whether all are finite.")
        .def(
            "fill_bf16",
            [](Matrix& self, int first, In<uint16_t, 2> bits) {
                check_rows(self, first, bits.shape(0), bits.shape(1));
                nb::gil_scoped_release release;
                return pack_bf16(self, first, int(bits.shape(0)), bits.data(), int(bits.shape(1)));
            },
            "The same from the bits of bfloat16.")
        .def(
            "fill_ternary",
            [](Matrix& self, int first, In<int8_t, 2> codes, In<float, 2> scales) {
                const Weights& w = self.weights;
                check_rows(self, first, codes.shape(0), codes.shape(1));
                const size_t groups = size_t(padded(w.cols, w.group) / w.group);
                if (!is_ternary(w.format) || scales.shape(0) != codes.shape(0) || scales.shape(1) != groups)
                    refuse("the scales do not fit");
                nb::gil_scoped_release release;
                uint8_t most = 0;
                const int8_t *from = codes.data(), *end = from + codes.size();
                for (; from < end; from++) most = std::max(most, uint8_t(*from + 1));
                if (most > 2) refuse("a code is not -1, 0 or 1");
                return pack_ternary(self, first, int(codes.shape(0)), codes.data(), scales.data(), int(codes.shape(1)));
            },
            "The same of ternary weights from codes -1, 0 and 1 (rows, cols) and scales (rows, groups).")
        .def(
            "repacked",
            [](const Matrix& self, const std::string& format) {
                const Format form = format_named(format);
                if (!is_ternary(form) || !is_ternary(self.weights.format)) refuse("no such packing");
                return repacked(self, form);
            },
            "A ternary matrix in the format `ternary` or `trits`.")
        .def(
            "fill_gguf",
            [](Matrix& self, int first, const std::string& type, In<uint8_t, 2> blocks, int cols) {
                check_rows(self, first, blocks.shape(0), cols);
                if (blocks.shape(1) != gguf_row_bytes(type, cols)) refuse("no rows of " + type);
                nb::gil_scoped_release release;
                return pack_gguf(self, first, int(blocks.shape(0)), type, blocks.data(), cols);
            },
            "The same from GGUF blocks (rows, bytes), without loss; the blocks of a group have the same scale.")
        .def(
            "row",
            [](const Matrix& self, int row) {
                if (row < 0 || row >= self.weights.rows) refuse("no such row");
                nb::capsule owner;
                float* out = fresh<float>(self.weights.cols, owner);
                kernels().row(self.weights, row, out);
                return nb::ndarray<nb::numpy, float, nb::ndim<1>>(out, {size_t(self.weights.cols)}, owner);
            },
            "A row as floats, padded columns included.")
        .def_prop_ro("format", [](const Matrix& self) { return name_of(self.weights.format); })
        .def_prop_ro("group", [](const Matrix& self) { return self.weights.group; })
        .def_prop_ro("minimum", [](const Matrix& self) { return self.weights.minimum; })
        .def_prop_ro("nbytes", &Matrix::size)
        .def_prop_ro(
            "data",
            [](nb::object self) {
                Matrix& matrix = nb::cast<Matrix&>(self);
                return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(matrix.bytes.get(), {matrix.size()}, self);
            },
            "The packed bytes.");
}

}  // namespace riyaz
