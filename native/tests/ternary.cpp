// Checks of products of ternary weights: codes of inputs and sums are the same on every instruction set, bit for bit,
// and those of plain sums of integers.
#include "tests/checks.h"

namespace riyaz::checks {
namespace {

constexpr int TOKENS = 41;  // more than three tiles of many tokens, and a rest
constexpr int COUNTS[] = {1, 2, 3, 5, 8, 11, 15, 16, 17, TOKENS};

// Codes and scales as they come, the matrix made of them, and tokens of very different sizes
struct Case {
    int rows, cols, group;
    std::vector<int8_t> codes;
    Floats scales, x;
    Matrix matrix;

    Case(Format format, int rows_, int cols_, int group_, uint32_t seed)
        : rows(rows_),
          cols(cols_),
          group(group_ ? group_ : padded(cols_, TERNARY)),
          matrix(format, rows_, cols_, group_) {
        Random random(seed);
        for (int i = 0; i < rows * cols; i++) codes.push_back(int8_t(random.whole(-1, 1)));
        for (int i = 0; i < cols; i++) codes[i] = 1;  // the largest sums
        scales = random.numbers(size_t(rows) * groups());
        pack_ternary(matrix, 0, rows, codes.data(), scales.data(), cols);
        x = random.numbers(size_t(TOKENS) * cols);
        for (int t = 0; t < TOKENS; t++)
            for (int c = 0; c < cols; c++) x[t * cols + c] *= std::exp(4 * std::sin(float(t)));
        for (int c = 0; c < cols; c++) x[c] = 3, x[2 * cols + c] = c % 3 ? -1 : 0;
    }
    int groups() const { return padded(padded(cols, TERNARY), group) / group; }
    const Weights& w() const { return matrix.weights; }
};

// Inputs of ternary products
struct Coded {
    std::vector<int8_t> codes;
    Floats scale;
    std::vector<int32_t> total;
    Inputs in;

    Coded(const Kernels& k, const Floats& x, int T, int C) {
        in.cols = padded(C, GROUP);
        codes.resize(size_t(T) * in.cols + 64), scale.resize(T), total.resize(size_t(T) * in.cols / TERNARY);
        in.token_codes = codes.data(), in.token_scale = scale.data(), in.token_total = total.data();
        for (int t = 0; t < T; t++) k.ternary_inputs(x.data() + size_t(t) * C, C, in.from(t));
    }
    Coded(const Coded&) = delete;
};

Floats products(const Kernels& k, const Weights& w, const Inputs& x, int T, bool add = false, bool apart = false) {
    Floats y(size_t(T) * w.rows, add ? 0.5f : NONE);
    Scratch scratch(x.cols);
    for (int b = 0; b < w.blocks(); b += apart ? 1 : w.blocks())
        k.ternary(w, b, apart ? b + 1 : w.blocks(), x, T, y.data(), w.rows, add, nullptr, scratch.at());
    return y;
}

// By sums of integers; with one group there is one rounding by each scale, else the order of groups
Floats wanted_of(const Case& one, const Coded& x, Sizes& sizes) {
    Floats y(size_t(TOKENS) * one.rows);
    sizes.assign(y.size(), 0);
    for (int t = 0; t < TOKENS; t++)
        for (int r = 0; r < one.rows; r++) {
            float all = 0;
            for (int g = 0; g < one.groups(); g++) {
                int32_t sum = 0;
                for (int c = g * one.group; c < std::min(one.cols, (g + 1) * one.group); c++)
                    sum += one.codes[r * one.cols + c] * x.codes[size_t(t) * x.in.cols + c];
                const float term = one.scales[r * one.groups() + g] * float(sum);
                all += term, sizes[t * one.rows + r] += std::fabs(term * x.scale[t]);
            }
            y[t * one.rows + r] = all * x.scale[t];
        }
    return y;
}

template <Format FORMAT, int COLUMNS = 0>
double product_check(const Sets& k) {
    double worst = 0;
    const int shapes[][2] = {{1, 32}, {16, 100}, {37, 330}, {50, 1536}};
    for (const auto& [rows, cols] : shapes) {
        const Case one(FORMAT, rows, cols, COLUMNS, uint32_t(rows));
        const Coded x(k.checked, one.x, TOKENS, cols);
        Sizes allowed;
        const Floats wanted = wanted_of(one, x, allowed), found = products(k.checked, one.w(), x.in, TOKENS);
        for (double& size : allowed) size *= NEAR;
        worst = std::max(worst, COLUMNS ? errors(found, wanted, allowed) : same(found, wanted));
        if (&k.checked != &k.plain) worst = std::max(worst, same(products(k.fused, one.w(), x.in, TOKENS), found));
        worst = std::max(worst, same(products(k.checked, one.w(), x.in, TOKENS, false, true), found));
        const Floats added = products(k.checked, one.w(), x.in, 3, true);
        for (size_t i = 0; i < added.size(); i++) worst = std::max(worst, must(added[i] == 0.5f + found[i]));
        for (const int T : COUNTS) {  // a token's result does not depend on others
            const Floats last(found.end() - T * rows, found.end());
            worst = std::max(worst, same(products(k.checked, one.w(), x.in.from(TOKENS - T), T), last));
        }
    }
    return worst;
}

double inputs_check(const Sets& k) {
    double worst = 0;
    for (const int C : {1, 31, 32, 100, 256}) {
        Floats x = Random(8).numbers(size_t(9) * C, 3);
        x[0] = NONE, x[5 * C + C / 2] = INFINITY;
        for (int c = 0; c < C; c++) x[C + c] = 0, x[2 * C + c] *= 1e-38f, x[3 * C + c] *= 1e-7f, x[4 * C + c] *= 1e37f;
        for (int c = 0; c < C; c++) x[6 * C + c] = float(c % 9) + 0.5f;  // ties, where the largest is 127
        x[6 * C] = 127;
        const Coded found(k.checked, x, 9, C), wanted(k.plain, x, 9, C);
        worst = std::max({worst, same(found.codes, wanted.codes), same(found.total, wanted.total),
                          errors(found.scale, wanted.scale, Sizes(9))});
        worst = std::max(worst, must(std::isnan(found.scale[0]) && std::isnan(found.scale[5])));
        for (int t = 1; t < 9; t++) {
            float largest = 1e-5f;
            for (int c = 0; c < C; c++) largest = std::max(largest, std::fabs(x[t * C + c]));
            for (int c = 0; c < C && t != 5; c++)
                worst = std::max(worst, must(found.codes[size_t(t) * found.in.cols + c] ==
                                             int8_t(std::nearbyint(x[t * C + c] * (127 / largest)))));
        }
    }
    return worst;
}

double row_check(const Sets& k) {
    double worst = 0;
    for (const Format format : {Format::ternary, Format::trits}) {
        const Case one(format, 37, 330, 0, 3), grouped(format, 37, 330, 64, 4);
        for (const Case* each : {&one, &grouped}) {
            const Floats found = rows_of(k.checked, each->matrix);
            for (int r = 0; r < 37; r++)
                for (int c = 0; c < 330; c++) {
                    const float scale = each->scales[r * each->groups() + c / each->group];
                    worst = std::max(worst, must(found[r * each->w().cols + c] == scale * each->codes[r * 330 + c]));
                }
        }
        for (const Case* each : {&one, &grouped}) {
            const Matrix other = repacked(each->matrix, format == Format::trits ? Format::ternary : Format::trits);
            const Matrix back = repacked(other, format);
            worst = std::max(worst, must(memcmp(back.bytes.get(), each->matrix.bytes.get(), back.size()) == 0));
        }
    }
    return worst;
}

}  // namespace

const std::vector<Check> ternary = {
    {"ternary inputs", inputs_check},
    {"ternary row", row_check},
    {"ternary", product_check<Format::ternary>},
    {"ternary groups of 128", product_check<Format::ternary, 128>},
    {"ternary groups of 48", product_check<Format::ternary, 48>},
    {"trits", product_check<Format::trits>},
    {"trits groups of 128", product_check<Format::trits, 128>},
    {"trits groups of 48", product_check<Format::trits, 48>},
};

}  // namespace riyaz::checks
