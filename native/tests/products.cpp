// Checks of packing's inverse, of products and of the sketch. Rows and columns fill blocks and do not.
#include "tests/checks.h"

namespace riyaz::checks {
namespace {

constexpr int MANY = 11;       // tokens: eight, two and one together
constexpr float BEFORE = 0.5;  // what results hold before a product adds to them

struct Shape {
    int rows, cols;
};
std::vector<Shape> shapes(Format format) {
    if (format == Format::int4k) return {{1, 256}, {37, 512}};
    return {{1, 32}, {15, 100}, {37, 31}, {50, 256}};
}
bool of_integers(Format format) { return format == Format::int8 || format == Format::int4 || format == Format::int4k; }

// A matrix, and T tokens of very different sizes; inputs are padded to what every format stores
struct Case {
    Matrix matrix;
    Floats x;
    int cols, T;

    Case(Format format, Shape shape, uint32_t seed, int group = GROUP, bool minimum = true, int tokens = MANY)
        : matrix(random_matrix(format, shape.rows, shape.cols, seed, false, group, minimum)),
          cols(shape.cols),
          T(tokens) {
        Random random(seed + 1);
        x = random.numbers(size_t(T) * cols);
        for (int t = 0; t < T; t++)
            for (int c = 0; c < cols; c++) x[t * cols + c] *= std::exp(4 * std::sin(float(t)));
    }
    int taken() const { return padded(matrix.weights.cols, GROUP); }
    int rows() const { return matrix.weights.rows; }
    const Weights& w() const { return matrix.weights; }
};

// Results of T tokens from `first`, with at most `blocks` blocks of rows in a call
Floats few_tokens(const Kernels& k, const Weights& w, const Taken& x, int first, int T, bool add, int blocks = 1 << 20,
                  void* scratch = nullptr) {
    Floats y(size_t(T) * w.rows, add ? BEFORE : NONE);
    for (int b = 0; b < w.blocks(); b += blocks)
        k.few_tokens(w, b, std::min(b + blocks, w.blocks()), x.inputs.from(first), T, y.data(), w.rows, add, nullptr,
                     scratch);
    return y;
}

Floats few_tokens_gated(const Kernels& k, const Weights& gate, const Weights& up, const Taken& x, int T,
                        Activation activation, void* scratch = nullptr) {
    Floats y(size_t(T) * gate.rows, NONE);
    k.few_tokens_gated(gate, up, 0, gate.blocks(), activation, x.inputs, T, y.data(), gate.rows, nullptr, scratch);
    return y;
}

// The sums of the sizes of all terms of the products of all tokens [T][rows]
Sizes sizes_of(const Kernels& k, const Case& one, const Taken& x) {
    const Floats weights = rows_of(k, one.matrix);
    Sizes sizes(size_t(one.T) * one.rows());
    for (int t = 0; t < one.T; t++)
        for (int r = 0; r < one.rows(); r++)
            for (int c = 0; c < one.w().cols; c++)
                sizes[t * one.rows() + r] +=
                    std::fabs(weights[size_t(r) * one.w().cols + c] * x.value(one.w().format, t, c));
    return sizes;
}

template <Format FORMAT, int COLUMNS = GROUP, bool MINIMUM = true>
double few_tokens_check(const Sets& k) {
    double worst = 0;
    for (const Shape shape : shapes(FORMAT)) {
        Case one(FORMAT, shape, uint32_t(shape.rows), COLUMNS, MINIMUM);
        const Taken x(k.plain, one.x, MANY, one.cols, one.taken());
        Sizes allowed = sizes_of(k.plain, one, x);
        for (double& size : allowed) size = NEAR * (size + BEFORE);
        const Floats wanted = few_tokens(k.plain, one.w(), x, 0, MANY, false);
        const Floats found = few_tokens(k.checked, one.w(), x, 0, MANY, false);
        worst = std::max(worst, errors(found, wanted, allowed));
        worst = std::max(worst, same(few_tokens(k.checked, one.w(), x, 0, MANY, false, 1), found));
        worst = std::max(worst, errors(few_tokens(k.checked, one.w(), x, 0, MANY, true),
                                       few_tokens(k.plain, one.w(), x, 0, MANY, true), allowed));
        if (of_integers(FORMAT) && &k.checked != &k.plain)
            worst = std::max(worst, same(few_tokens(k.fused, one.w(), x, 0, MANY, false), found));
        for (int T = 1; T < MANY; T++) {  // a token's result does not depend on others
            const Floats last(found.end() - T * one.rows(), found.end());
            worst = std::max(worst, same(few_tokens(k.checked, one.w(), x, MANY - T, T, false), last));
        }
        one.x[3 * one.cols + one.cols / 2] = NONE;
        const Taken damaged(k.checked, one.x, MANY, one.cols, one.taken());
        const Floats none = few_tokens(k.checked, one.w(), damaged, 0, MANY, false);
        for (size_t i = 0; i < none.size(); i++) {
            const bool of_it = i / one.rows() == 3;
            worst = std::max(worst, must(of_it ? std::isnan(none[i]) : none[i] == found[i]));
        }
    }
    return worst;
}

// Integers: all results are whole numbers below 2^24, which every set has exactly.
template <Format FORMAT>
double whole_check(const Sets& k) {
    const int rows = 37, cols = 512;
    const Matrix matrix = random_matrix(FORMAT, rows, cols, 5, true);
    Random random(6);
    Floats x(size_t(MANY) * cols);
    for (int i = 0; i < MANY * cols; i++) {
        const bool largest = i / cols < 3;
        x[i] = float(largest ? (random.whole(0, 1) ? 127 : -127) : random.whole(-127, 127));
        if (i % GROUP == 5) x[i] = 127;  // each group's largest: its codes are the numbers themselves
        if (FORMAT == Format::int4k && i % cols >= GROUP) x[i] = 0;  // scales reach 63
    }
    const Taken taken(k.checked, x, MANY, cols, cols);
    const Floats weights = rows_of(k.plain, matrix),
                 found = few_tokens(k.checked, matrix.weights, taken, 0, MANY, false);
    bool exact = true;
    for (int t = 0; t < MANY; t++)
        for (int r = 0; r < rows; r++) {
            int64_t sum = 0;
            for (int c = 0; c < cols; c++) sum += int64_t(weights[r * cols + c]) * int64_t(x[t * cols + c]);
            exact = exact && int64_t(found[t * rows + r]) == sum;
        }
    return must(exact);
}

// Terms of a gated product: the gate changes by at most 1.1 of its sum's error.
double gated_check(const Sets& k) {
    double worst = 0;
    for (const Format format : {Format::fp32, Format::bf16, Format::int8, Format::int4}) {
        const Case gate(format, {37, 100}, 1), up(format, {37, 100}, 2);
        const Taken x(k.plain, gate.x, MANY, gate.cols, gate.taken());
        const Sizes left = sizes_of(k.plain, gate, x), right = sizes_of(k.plain, up, x);
        Sizes allowed(left.size());
        for (size_t i = 0; i < left.size(); i++) allowed[i] = 2 * NEAR * (left[i] * right[i] + left[i] + right[i]);
        for (const Activation activation : {Activation::silu, Activation::gelu_tanh})
            for (int T = 1; T <= MANY; T++) {
                const Floats found = few_tokens_gated(k.checked, gate.w(), up.w(), x, T, activation);
                const Floats wanted = few_tokens_gated(k.plain, gate.w(), up.w(), x, T, activation);
                worst = std::max(worst, errors(found, wanted, allowed));
            }
    }
    return worst;
}

// So many tokens that kernels unpack weights where they are given `scratch`: the results are the same bit for bit.
template <Format FORMAT, int COLUMNS = GROUP, bool MINIMUM = true>
double unpacked_check(const Sets& k) {
    double worst = 0;
    for (const Shape shape : shapes(FORMAT)) {
        Case one(FORMAT, shape, 17, COLUMNS, MINIMUM, 101);
        const Case other(FORMAT, shape, 18, COLUMNS, MINIMUM, 0), bytes(Format::int8, shape, 19, GROUP, true, 0);
        const Taken x(k.plain, one.x, one.T, one.cols, one.taken());
        Sizes allowed = sizes_of(k.plain, one, x);
        for (double& size : allowed) size *= NEAR;
        Scratch scratch(one.taken());
        const Floats unpacked = few_tokens(k.checked, one.w(), x, 0, one.T, false, 4, scratch.at());
        worst = std::max(worst, errors(unpacked, few_tokens(k.plain, one.w(), x, 0, one.T, false), allowed));

        one.x[3 * one.cols + one.cols / 2] = NONE;
        const Taken damaged(k.plain, one.x, one.T, one.cols, one.taken());
        for (const int T : {96, 97, 101})
            for (const bool add : {false, true})
                for (const int blocks : {2, 3, 4})
                    if (!left_out(T + add, 2) && !left_out(T + blocks, 3))
                        worst = std::max(worst,
                                         same(few_tokens(k.checked, one.w(), damaged, 0, T, add, blocks, scratch.at()),
                                              few_tokens(k.checked, one.w(), damaged, 0, T, add)));
        for (const Activation activation : {Activation::silu, Activation::relu2})
            for (const Case* up : {&other, &bytes}) {
                const bool odd = (activation == Activation::silu) != (up == &other);
                if (up->taken() != one.taken() || left_out(odd, 2)) continue;
                worst = std::max(
                    worst, same(few_tokens_gated(k.checked, one.w(), up->w(), damaged, 97, activation, scratch.at()),
                                few_tokens_gated(k.checked, one.w(), up->w(), damaged, 97, activation)));
            }
    }
    return worst;
}

double row_check(const Sets& k) {
    double worst = 0;
    for (const Format format : {Format::fp32, Format::bf16, Format::int8, Format::int4, Format::int4k, Format::int8row})
        for (const Shape shape : shapes(format)) {
            const Matrix matrix = random_matrix(format, shape.rows, shape.cols, 7);
            worst = std::max(worst, same(rows_of(k.checked, matrix), rows_of(k.plain, matrix)));
        }
    for (const bool minimum : {false, true}) {
        const Matrix matrix = random_matrix(Format::int4, 37, 100, 7, false, 64, minimum);
        worst = std::max(worst, same(rows_of(k.checked, matrix), rows_of(k.plain, matrix)));
    }
    return worst;
}

double inputs_check(const Sets& k) {
    double worst = 0;
    for (const int C : {1, 31, 32, 100, 256}) {
        Floats x = Random(8).numbers(size_t(MANY) * C, 3);
        x[0] = NONE;
        for (int c = 0; c < C; c++) x[C + c] = 0, x[2 * C + c] *= 1e-38f, x[3 * C + c] *= 1e-44f, x[4 * C + c] *= 1e37f;
        x[5 * C + C / 2] = INFINITY;
        for (int c = 0; c < C; c++) x[6 * C + c] = float(c % 9) + 0.5f;  // ties, where the largest is 127
        x[6 * C] = 127;
        const int cols = padded(C, GROUP);
        const Taken found(k.checked, x, MANY, C, cols), wanted(k.plain, x, MANY, C, cols);
        for (const double one :
             {same(found.codes, wanted.codes), same(found.low, wanted.low), same(found.total, wanted.total),
              same(found.bf16, wanted.bf16), same(found.fp32, wanted.fp32),
              errors(found.scale, wanted.scale, Sizes(wanted.scale.size())),
              errors(found.sum, wanted.sum, Sizes(wanted.sum.size()))})
            worst = std::max(worst, one);
        worst = std::max(worst, must(std::isnan(found.scale[0])));
        for (int t = 6; t < MANY; t++)  // two codes are at most a step of the second one off
            for (int c = 0; c < C; c++) {
                const float step = found.scale[size_t(t) * (cols / GROUP) + c / GROUP];
                worst = std::max(worst, must(error(found.value(Format::int8, t, c), x[t * C + c], 1.01 * step) <= 1));
            }
    }
    return worst;
}

double sketch_check(const Sets& k) {
    const Case one(Format::int8, {37, 256}, 9);
    const Taken x(k.plain, one.x, MANY, one.cols, one.taken());
    const int padded_rows = 48;
    double worst = 0;
    for (int T = 1; T <= MOST_SKETCHED; T++) {
        Floats found(size_t(T) * padded_rows), wanted = found, found_spread = found, wanted_spread = found;
        k.checked.sketch(one.w(), 0, 3, x.inputs, T, found.data(), found_spread.data(), padded_rows, nullptr);
        k.plain.sketch(one.w(), 0, 3, x.inputs, T, wanted.data(), wanted_spread.data(), padded_rows, nullptr);
        Sizes allowed(found.size()), of_spread(found.size());
        for (size_t i = 0; i < allowed.size(); i++) {
            double size = 0;
            for (int c = 0; c < one.cols; c++) size += std::fabs(x.value(Format::int8, int(i / padded_rows), c));
            allowed[i] = NEAR * 0.3 / 127 * 256 * size;  // codes to 128, and the middle of the lower halves
            of_spread[i] = NEAR * wanted_spread[i];
        }
        worst = std::max(worst, errors(found, wanted, allowed));
        worst = std::max(worst, errors(found_spread, wanted_spread, of_spread));
        for (int i = 37; i < padded_rows; i++) worst = std::max(worst, must(found[i] == -INFINITY));
    }
    return worst;
}

double contenders_check(const Sets& k) {
    Random random(10);
    const Floats y = random.numbers(256, 20), variance = random.numbers(256);
    Floats spread(256);
    for (int i = 0; i < 256; i++) spread[i] = variance[i] * variance[i];
    double worst = 0;
    for (const float best : {20.0f, 22.0f, 24.0f, 26.0f, 100.0f, NONE}) {
        std::vector<int> found(16, -1), wanted = found;
        const int n = k.checked.contenders(y.data(), spread.data(), 256, best, 0.1f, found.data());
        worst = std::max(worst, must(n == k.plain.contenders(y.data(), spread.data(), 256, best, 0.1f, wanted.data())));
        worst = std::max(worst, same(found, wanted));
    }
    return worst;
}

// Products in tiles, from the same weights and inputs in bfloat16, which holds weights of bf16 and codes of int8row
// exactly; with and without columns that only pad
template <Format FORMAT>
double tiles_check(const Sets& k) {
    double worst = 0;
    const int T = 40;
    const double near = FORMAT == Format::bf16 || FORMAT == Format::int8row ? 2 * NEAR : BF16;
    for (const auto [rows, C] : {Shape{50, 256}, Shape{37, 1536}, Shape{50, 40}, Shape{50, 1312}}) {
        if (C % SUPER && FORMAT == Format::int4k) continue;
        const Matrix one = random_matrix(FORMAT, rows, C, 11), other = random_matrix(FORMAT, rows, C, 12);
        const int cols = padded(one.weights.cols, GROUP);
        const Taken x(k.plain, Random(13).numbers(size_t(T) * C), T, C, cols);
        Floats found(size_t(T) * rows), wanted[2] = { found, found };
        std::vector<uint16_t> gated(size_t(T) * padded(rows, GROUP), 0x7fc0);  // not numbers
        Sizes sizes[2] = {Sizes(found.size()), Sizes(found.size())};
        for (int m = 0; m < 2; m++) {
            const Floats weights = rows_of(k.plain, m ? other : one);
            for (int t = 0; t < T; t++)
                for (int r = 0; r < rows; r++) {
                    double sum = 0;
                    for (int c = 0; c < C; c++) {
                        const double term = weights[r * one.weights.cols + c] * x.value(Format::bf16, t, c);
                        sum += term, sizes[m][t * rows + r] += std::fabs(term);
                    }
                    wanted[m][t * rows + r] = float(sum);
                }
        }
        Scratch scratch(cols);
        for (const bool add : {false, true}) {
            std::fill(found.begin(), found.end(), add ? BEFORE : NONE);
            k.checked.many_tokens(one.weights, 0, one.weights.blocks(), x.inputs, T, found.data(), rows, add,
                                  scratch.at());
            const double before = add ? BEFORE : 0;
            for (size_t i = 0; i < found.size(); i++)
                worst = std::max(worst, error(found[i], wanted[0][i] + before, near * (sizes[0][i] + before)));
        }
        Inputs to;
        to.strips = gated.data(), to.strip_rows = T;
        k.checked.many_tokens_gated(one.weights, other.weights, 0, one.weights.blocks(), Activation::silu, x.inputs, T,
                                    to, scratch.at());
        for (int t = 0; t < T; t++)
            for (int r = 0; r < padded(rows, GROUP); r++) {
                const float found_ = from_bf16(gated[(size_t(r / GROUP) * T + t) * GROUP + r % GROUP]);
                if (r >= rows) worst = std::max(worst, must(found_ == 0));
                if (r >= rows) continue;
                const int i = t * rows + r;
                const double right = wanted[0][i] / (1 + std::exp(-double(wanted[0][i]))) * wanted[1][i];
                const double allowed = BF16 * std::fabs(right) + 2.1 * near * sizes[0][i] * sizes[1][i];
                worst = std::max(worst, error(found_, right, allowed));
            }
    }
    return worst;
}

// The inputs, and the products, of kernels for many tokens by codes
struct Many {
    Many(const Kernels& k, const Floats& x, int T, int cols, int group, const Matrix& one, const Matrix& other)
        : codes(size_t(T) * cols),
          total(size_t(T) * cols / GROUP),
          scale(total.size()),
          fp32(codes.size()),
          plain(size_t(T) * one.weights.rows),
          gated(plain.size()) {
        Inputs in;
        in.cols = cols, in.codes = codes.data(), in.scale = scale.data(), in.total = total.data();
        in.fp32 = fp32.data(), in.many_tokens_group = group;
        for (int t = 0; t < T; t++) k.many_tokens_inputs(x.data() + size_t(t) * cols, cols, in.from(t));
        Scratch scratch(cols);
        const int rows = one.weights.rows, blocks = one.weights.blocks();
        k.many_tokens(one.weights, 0, blocks, in, T, plain.data(), rows, false, scratch.at());
        Inputs to;
        to.cols = rows, to.fp32 = gated.data();
        k.many_tokens_gated(one.weights, other.weights, 0, blocks, Activation::silu, in, T, to, scratch.at());
    }

    std::vector<int8_t> codes;
    std::vector<int32_t> total;
    Floats scale, fp32, plain, gated;
};

// Products with many tokens in vector registers, beside those of plain loops
template <Format FORMAT, int GROUP_OF_INPUTS = MANY_TOKENS_GROUP>
double codes_check(const Sets& k) {
    if (!has_many_tokens(k.checked, FORMAT)) return 0;
    const int T = 40, cols = FORMAT == Format::int4k ? 256 : 224, rows = 50;
    const Matrix one = random_matrix(FORMAT, rows, cols, 14), other = random_matrix(FORMAT, rows, cols, 15);
    const Floats x = Random(16).numbers(size_t(T) * cols);
    const Many found(k.checked, x, T, cols, GROUP_OF_INPUTS, one, other);
    const Many wanted(k.plain, x, T, cols, GROUP_OF_INPUTS, one, other);
    double worst = std::max(same(found.codes, wanted.codes), same(found.scale, wanted.scale));
    const Floats weights[2] = {rows_of(k.plain, one), rows_of(k.plain, other)};
    Sizes allowed(found.plain.size()), of_gated(allowed.size());
    for (int t = 0; t < T; t++)
        for (int r = 0; r < rows; r++) {
            double size[2] = {};
            for (int m = 0; m < 2; m++)
                for (int c = 0; c < cols; c++) size[m] += std::fabs(weights[m][r * cols + c] * x[t * cols + c]);
            allowed[t * rows + r] = 2 * NEAR * size[0];
            of_gated[t * rows + r] = 8 * NEAR * (size[0] + 1) * (size[1] + 1);
        }
    worst = std::max(worst, errors(found.plain, wanted.plain, allowed));
    return std::max(worst, errors(found.gated, wanted.gated, of_gated));
}

}  // namespace

const std::vector<Check> products = {
    {"inputs", inputs_check},
    {"row", row_check},
    {"few tokens fp32", few_tokens_check<Format::fp32>},
    {"few tokens bf16", few_tokens_check<Format::bf16>},
    {"few tokens int8", few_tokens_check<Format::int8>},
    {"few tokens int4", few_tokens_check<Format::int4>},
    {"few tokens int4 of 64", few_tokens_check<Format::int4, 64>},
    {"few tokens int4 of 128", few_tokens_check<Format::int4, 128, false>},
    {"few tokens int4k", few_tokens_check<Format::int4k>},
    {"few tokens int8row", few_tokens_check<Format::int8row>},
    {"whole numbers int8", whole_check<Format::int8>},
    {"whole numbers int4", whole_check<Format::int4>},
    {"whole numbers int4k", whole_check<Format::int4k>},
    {"few tokens gated", gated_check},
    {"unpacked int8", unpacked_check<Format::int8>},
    {"unpacked int4", unpacked_check<Format::int4>},
    {"unpacked int4 of 64", unpacked_check<Format::int4, 64>},
    {"unpacked int4 of 128", unpacked_check<Format::int4, 128, false>},
    {"unpacked int4k", unpacked_check<Format::int4k>},
    {"sketch", sketch_check},
    {"contenders", contenders_check},
    {"tiles bf16", tiles_check<Format::bf16>, ManyTokens::tiles},
    {"tiles int8", tiles_check<Format::int8>, ManyTokens::tiles},
    {"tiles int4", tiles_check<Format::int4>, ManyTokens::tiles},
    {"tiles int4k", tiles_check<Format::int4k>, ManyTokens::tiles},
    {"tiles int8row", tiles_check<Format::int8row>, ManyTokens::tiles},
    {"codes int8", codes_check<Format::int8>, ManyTokens::codes},
    {"codes int8 in groups of 32", codes_check<Format::int8, GROUP>, ManyTokens::codes},
    {"codes int4", codes_check<Format::int4>, ManyTokens::codes},
    {"codes int4 in groups of 32", codes_check<Format::int4, GROUP>, ManyTokens::codes},
    {"codes int4k", codes_check<Format::int4k>, ManyTokens::codes},
    {"codes int8row", codes_check<Format::int8row>, ManyTokens::codes},
    {"codes bf16", codes_check<Format::bf16>, ManyTokens::codes},
};

}  // namespace riyaz::checks
