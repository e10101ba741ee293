// Random matrices and inputs in every format, for the checks of products.
#include "tests/checks.h"

namespace riyaz::checks {

Taken::Taken(const Kernels& k, const Floats& x, int T, int C, int cols) {
    const size_t numbers = size_t(padded(T, 32)) * cols, groups = size_t(T) * (cols / GROUP);
    codes.resize(numbers), low.resize(numbers), fp32.resize(numbers), bf16.resize(numbers);
    scale.resize(groups), sum.resize(groups), total.resize(groups);
    inputs = {cols, codes.data(), low.data(), scale.data(), sum.data(), total.data(), bf16.data(), fp32.data()};
    for (int t = 0; t < T; t++) k.inputs(x.data() + size_t(t) * C, C, inputs.from(t));
    inputs.strip_rows = padded(T, 32);
    strips.resize(numbers);
    for (int t = 0; t < T; t++)
        for (int c = 0; c < cols; c++)
            strips[(size_t(c / GROUP) * inputs.strip_rows + t) * GROUP + c % GROUP] = bf16[size_t(t) * cols + c];
    inputs.strips = strips.data();
}

double Taken::value(Format format, int t, int c) const {
    const size_t at = size_t(t) * inputs.cols + c;
    if (format == Format::fp32 || format == Format::int8row) return fp32[at];
    if (format == Format::bf16) return from_bf16(bf16[at]);
    return (256.0 * codes[at] + low[at]) * scale[size_t(t) * (inputs.cols / GROUP) + c / GROUP];
}

namespace {

constexpr uint16_t ONE = 0x3c00;  // in half precision

uint16_t small_scale(Random& random) { return uint16_t(random.whole(0x1000, 0x2400) | random.whole(0, 1) << 15); }

// Blocks of one row of GGUF's Q8_0, Q4_1 or Q4_K with every code; `whole`: all scales and minima are whole numbers
std::vector<uint8_t> random_blocks(const std::string& type, size_t bytes, bool whole, Random& random) {
    std::vector<uint8_t> blocks(bytes);
    const size_t size = gguf_row_bytes(type, type == "Q4_K" ? SUPER : GROUP);
    for (size_t at = 0; at < bytes; at += size) {
        for (size_t i = 0; i < size; i++) blocks[at + i] = uint8_t(random.word() >> 8);
        if (type == "Q8_0" && random.whole(0, 2) == 0)
            for (size_t i = 2; i < size; i++) blocks[at + i] = random.whole(0, 1) ? 0x80 : 0x7f;
        const uint16_t halves[2] = {whole ? ONE : small_scale(random), whole ? ONE : small_scale(random)};
        memcpy(blocks.data() + at, halves, type == "Q8_0" ? 2 : 4);
    }
    return blocks;
}

}  // namespace

Matrix random_matrix(Format format, int rows, int cols, uint32_t seed, bool whole, int group, bool minimum) {
    Random random(seed);
    Matrix matrix(format, rows, cols, group, minimum);
    if (format == Format::int4k || whole) {
        const char* type = format == Format::int4k ? "Q4_K" : format == Format::int4 ? "Q4_1" : "Q8_0";
        const size_t bytes = gguf_row_bytes(type, cols);
        pack_gguf(matrix, 0, rows, type, random_blocks(type, rows * bytes, whole, random).data(), cols);
    } else {
        pack(matrix, 0, rows, random.numbers(size_t(rows) * cols, 0.3f).data(), cols);
    }
    return matrix;
}

Floats rows_of(const Kernels& k, const Matrix& matrix) {
    const Weights& w = matrix.weights;
    Floats all(size_t(w.rows) * w.cols);
    for (int r = 0; r < w.rows; r++) k.row(w, r, all.data() + size_t(r) * w.cols);
    return all;
}

}  // namespace riyaz::checks
