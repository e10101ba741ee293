// Checks of training's products with frozen codes beside plain loops in double.
#include "../training_codes.h"

#include "tensors.h"

namespace riyaz::checks {
namespace {

// What rounding may change of a product of a row of weights and x: half a code of each input, in groups of at most
// WIDE_GROUP columns, or in tiles the rounding to bfloat16; and sums in float32
double allowed_of(const Kernels& k, const float* weights, const Tensor& x, size_t at, int cols) {
    double all = 0;
    for (int begin = 0; begin < cols; begin += WIDE_GROUP) {
        const int end = std::min(cols, begin + WIDE_GROUP);
        double largest = 0;
        for (int c = begin; c < end; c++) largest = std::max(largest, std::fabs(double(x[at + c])));
        for (int c = begin; c < end; c++) {
            const double term = std::fabs(double(weights[c]) * x[at + c]);
            const double half = std::fabs(weights[c]) * largest / 127 / 2;
            all += (k.wide_kind == Wide::tiles ? BF16 * term : half) + 2 * NEAR * (term + half);
        }
    }
    return all;
}

double code_product_check(const Sets& k, bool bf16) {
    double worst = 0;
    const int shapes[][3] = {{1, 31, 1}, {37, 100, 3}, {50, 256, 40}, {16, 192, 600}};  // rows, columns, tokens
    for (const auto& [rows, cols, T] : shapes) {
        const Matrix matrix = random_matrix(Format::int8, rows, cols, uint32_t(cols));
        const Weights& w = matrix.weights;
        const Floats weights = rows_of(k.plain, matrix);
        Tensor x = random_tensor(bf16, 3, size_t(T) * cols), found(bf16, size_t(T) * rows), again = found;
        for (int i = 0; i < T * cols; i++) x.put(i, x[i] * std::exp(4 * std::sin(float(i / cols))));
        code_product(k.checked, w, cols, x.data(), T, bf16, found.data(), false, 1);
        for (int t = 0; t < T; t++)
            for (int r = 0; r < rows; r++) {
                const float* row = &weights[size_t(r) * w.cols];
                double sum = 0;
                for (int c = 0; c < cols; c++) sum += double(row[c]) * x[size_t(t) * cols + c];
                const double rounding = bf16 ? ROUNDED * std::fabs(sum) : 0;
                worst =
                    std::max(worst, error(found[size_t(t) * rows + r], sum,
                                          1.01 * (allowed_of(k.checked, row, x, size_t(t) * cols, cols) + rounding)));
            }
        code_product(k.checked, w, cols, x.data(), T, bf16, again.data(), false, 2);
        worst = std::max(worst, must(again.is_same(found, 0, size_t(T) * rows + GUARDS)));
        code_product(k.checked, w, cols, x.data(), T, bf16, again.data(), true, 2);  // twice, each rounded once
        for (size_t i = 0; i < size_t(T) * rows; i++)
            worst = std::max(worst,
                             error(again[i], 2 * double(found[i]), 3 * (bf16 ? ROUNDED : NEAR) * std::fabs(found[i])));
        x.put(size_t(T) / 2 * cols, NONE);  // a token's result does not depend on others
        code_product(k.checked, w, cols, x.data(), T, bf16, again.data(), false, 2);
        for (int t = 0; t < T; t++) {
            const size_t at = size_t(t) * rows;
            worst = std::max(worst, must(t == T / 2 ? std::isnan(again[at]) : again.is_same(found, at, rows)));
        }
    }
    return worst;
}

}  // namespace

const std::vector<Check> training_codes = {
    {"training codes fp32", typed<code_product_check, false>},
    {"training codes bf16", typed<code_product_check, true>},
};

}  // namespace riyaz::checks
