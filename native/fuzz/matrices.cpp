// Packed matrices: rows of any format, size and bits written, read back, packed anew and multiplied, by the kernels of
// this CPU and by plain loops.
#include <cmath>
#include <stdexcept>
#include <string>

#include "engine/memory.h"
#include "engine/pack.h"
#include "fuzz/bytes.h"
#include "simd/dispatch.h"

namespace riyaz::fuzz {
namespace {

constexpr int INT4_GROUPS[] = {32, 64, 128};
const std::string TYPES[] = {"Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K", "F32", ""};

Matrix empty_matrix(Bytes& in, int& cols) {
    const Format format = Format(in.whole(0, 7));
    const int rows = in.whole(1, 40), columns = in.whole(1, 160), group = in.byte();
    cols = format == Format::int4k ? 256 * (1 + columns % 2) : columns;
    if (is_ternary(format)) return Matrix(format, rows, cols, group % 12 * TERNARY);
    if (format == Format::int4) return Matrix(format, rows, cols, INT4_GROUPS[group % 3], group & 8);
    return Matrix(format, rows, cols);
}

// Rows first ... first + n - 1 from what the input says; returns whether all numbers are finite.
bool fill(Matrix& matrix, Bytes& in, int first, int n, int cols) {
    const Weights& w = matrix.weights;
    const int kind = in.whole(0, 3);
    if (is_ternary(w.format)) {
        std::vector<int8_t> codes = in.values<int8_t>(size_t(n) * cols);
        for (int8_t& code : codes) code = int8_t(uint8_t(code) % 3 - 1);
        const int groups = padded(w.cols, w.group) / w.group;
        return pack_ternary(matrix, first, n, codes.data(), in.values<float>(size_t(n) * groups).data(), cols);
    }
    if (kind == 0) return pack(matrix, first, n, in.values<float>(size_t(n) * cols).data(), cols);
    if (kind == 1) return pack_bf16(matrix, first, n, in.values<uint16_t>(size_t(n) * cols).data(), cols);
    const std::string& type = TYPES[in.whole(0, 7)];
    const std::vector<uint8_t> blocks = in.values<uint8_t>(n * gguf_row_bytes(type, cols));
    return pack_gguf(matrix, first, n, type, blocks.data(), cols);
}

std::vector<float> rows_of(const Kernels& k, const Matrix& matrix) {
    const Weights& w = matrix.weights;
    std::vector<float> all(size_t(w.rows) * w.cols);
    for (int row = 0; row < w.rows; row++) k.row(w, row, all.data() + size_t(row) * w.cols);
    return all;
}

bool are_same(const std::vector<float>& some, const std::vector<float>& others) {
    for (size_t i = 0; i < some.size(); i++)
        if (some[i] != others[i] && !(std::isnan(some[i]) && std::isnan(others[i]))) return false;
    return true;
}

void expect_repacked(const Matrix& matrix) {
    const Format other = matrix.weights.format == Format::trits ? Format::ternary : Format::trits;
    const Matrix again = repacked(matrix, other);
    must(are_same(rows_of(kernels(), matrix), rows_of(kernels(), again)), "rows of a matrix packed anew");
    must(are_same(rows_of(kernels(), matrix), rows_of(kernels(), repacked(again, matrix.weights.format))), "and back");
}

// The product with T tokens, each array as large as the engine's own
void multiply(const Kernels& k, const Matrix& matrix, Bytes& in, int cols, bool many) {
    const Weights& w = matrix.weights;
    const int T = many ? in.whole(1, 40) : in.whole(1, 6), wide = padded(w.cols, GROUP);
    const std::vector<float> x = in.values<float>(size_t(T) * cols);
    const size_t lines = size_t(padded(T, 32)) + 32, groups = lines * (wide / GROUP);
    const size_t strips = size_t((padded(T, 32) + 32) | 32);
    std::vector<int8_t> codes(lines * wide), low(lines * wide), token_codes(lines * wide);
    std::vector<float> scale(groups), sum(groups), fp32(lines * wide), token_scale(lines);
    std::vector<int32_t> total(groups), token_total(lines * wide / TERNARY);
    std::vector<uint16_t> bf16(lines * wide), strip(strips * wide);
    Inputs to{wide, codes.data(), low.data(), scale.data(), sum.data(), total.data(), bf16.data(), fp32.data()};
    if (in.flag()) to.many_tokens_group = GROUP;
    to.strips = strip.data(), to.strip_rows = int(strips);
    if (is_ternary(w.format))
        to.token_codes = token_codes.data(), to.token_scale = token_scale.data(), to.token_total = token_total.data();
    const auto inputs = is_ternary(w.format) ? k.ternary_inputs : many ? k.many_tokens_inputs : k.inputs;
    for (int t = 0; t < T; t++) inputs(x.data() + size_t(t) * cols, cols, to.from(t));
    std::vector<float> y(size_t(T) * w.rows);
    const std::shared_ptr<uint8_t> scratch = take_memory(product_scratch(wide));
    if (is_ternary(w.format))
        k.ternary(w, 0, w.blocks(), to, T, y.data(), w.rows, false, nullptr, scratch.get());
    else if (many)
        k.many_tokens(w, 0, w.blocks(), to, T, y.data(), w.rows, false, scratch.get());
    else
        k.few_tokens(w, 0, w.blocks(), to, T, y.data(), w.rows, false, nullptr, scratch.get());
}

void run(Bytes& in) {
    int cols;
    Matrix matrix = empty_matrix(in, cols);
    const Weights& w = matrix.weights;
    const Kernels& k = in.flag() ? kernels() : kernels_of("scalar");
    const int first = in.byte() % w.rows, n = 1 + in.byte() % (w.rows - first);
    const bool many = in.byte() % 8 == 7 && has_many_tokens(k, w.format);
    try {
        fill(matrix, in, first, n, cols);
    } catch (const std::invalid_argument&) {  // no packing of this type into this format
        return;
    }
    rows_of(k, matrix);
    if (is_ternary(w.format)) expect_repacked(matrix);
    multiply(k, matrix, in, cols, many);
}

}  // namespace
}  // namespace riyaz::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    riyaz::fuzz::Bytes in(data, size);
    riyaz::fuzz::run(in);
    return 0;
}
