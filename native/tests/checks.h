// What the checks of kernels share: seeded random numbers, errors, and matrices of every format.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/pack.h"
#include "kernels/kernels.h"
#include "simd/numbers.h"

namespace riyaz::checks {

// The tolerances of tests/native/test_native_kernels.py and tests/native/test_native_embedder.py
constexpr double NEAR = 2e-6;        // of the sum of the sizes of all terms: sums in float32
constexpr double BF16 = 1.0 / 256;   // of the same, where a product in tiles rounds to bfloat16
constexpr double CODED = 1.0 / 127;  // of the largest value: half a code of the values, and as much by the weights
constexpr double GELU = 1e-6;        // of gelu by the error function, from that of the standard library
constexpr double WRONG = INFINITY;   // an error that nothing allows
constexpr float NONE = std::numeric_limits<float>::quiet_NaN();

// `--some`, for emulated CPUs, which take a hundred times as long: of a grid of cases those are run whose places in two
// lists, or numbers as different as these, add up to a multiple of `shorter`, the length of the shorter list. So every
// value of both lists takes part.
extern bool sampled;
inline bool left_out(int places, int shorter) { return sampled && places % shorter != 0; }

using Floats = std::vector<float>;
using Sizes = std::vector<double>;

// The kernels that are checked, those of plain loops, and those of the first set whose multiply-adds round once
struct Sets {
    const Kernels &checked, &plain, &fused;
};

// A check returns the largest error as a part of the allowed one: 0 is bit for bit the same, above 1 is wrong.
struct Check {
    const char* name;
    double (*error)(const Sets&);
    ManyTokens only = ManyTokens::none;  // of sets with such products with many tokens; none: of all
};
extern const std::vector<Check> products, ternary, functions, attentions, training, training_functions, training_codes,
    training_dense;

class Random {
  public:
    explicit Random(uint32_t seed) : engine(seed) {}
    uint32_t word() { return uint32_t(engine()); }
    int whole(int least, int greatest) { return least + int(word() % uint32_t(greatest - least + 1)); }
    float number() { return float(int32_t(word())) * 0x1p-31f; }  // -1 to 1
    Floats numbers(size_t n, float size = 1) {
        Floats all(n);
        for (float& x : all) x = size * number();
        return all;
    }

  private:
    std::mt19937 engine;
};

// |found - wanted| as a part of `allowed`; NaN and infinities must be where they are wanted.
inline double error(double found, double wanted, double allowed) {
    if (std::isnan(wanted)) return std::isnan(found) ? 0 : WRONG;
    if (found == wanted) return 0;
    const double part = std::fabs(found - wanted) / allowed;
    return std::isnan(part) ? WRONG : part;
}
inline double errors(const Floats& found, const Floats& wanted, const Sizes& allowed) {
    double worst = 0;
    for (size_t i = 0; i < wanted.size(); i++) worst = std::max(worst, error(found[i], wanted[i], allowed[i]));
    return worst;
}
template <class T>
double same(const std::vector<T>& found, const std::vector<T>& wanted) {
    return memcmp(found.data(), wanted.data(), wanted.size() * sizeof(T)) == 0 ? 0 : WRONG;
}
inline double must(bool holds) { return holds ? 0 : WRONG; }

// The inputs of products for T tokens, in every form
struct Taken {
    std::vector<int8_t> codes, low;
    std::vector<float> scale, sum, fp32;
    std::vector<int32_t> total;
    std::vector<uint16_t> bf16, strips;
    Inputs inputs;

    // x: [T][C]; `cols` numbers per token are taken, as the matrix has them
    Taken(const Kernels& k, const Floats& x, int T, int C, int cols);
    Taken(const Taken&) = delete;
    double value(Format format, int t, int c) const;  // what a product with such weights multiplies
};

// What products of `cols` columns unpack weights into, not numbers before that
class Scratch {
  public:
    explicit Scratch(int cols) : bytes(product_scratch(cols) + 64, 0xff) {}
    void* at() { return bytes.data() + (64 - uintptr_t(bytes.data()) % 64); }

  private:
    std::vector<uint8_t> bytes;
};

// Random weights; for int4k blocks of GGUF with small scales. `whole`: weights are whole numbers, of integer formats.
// `group` and `minimum` are those of int4.
Matrix random_matrix(Format format, int rows, int cols, uint32_t seed, bool whole = false, int group = GROUP,
                     bool minimum = true);
// Its weights [rows][cols padded]
Floats rows_of(const Kernels& k, const Matrix& matrix);

}  // namespace riyaz::checks
