// The likeliest token from half of the head's bytes and of the inputs' bits. The lower half of a weight's code changes
// it by at most 7.5 scales, and evenly so; the sum of these changes over the columns is close to a normal number with a
// known variance, and so is what the second codes of the inputs add. Rows whose estimate is further below the best one
// than SIGMAS standard deviations of their difference need not be computed.
#include "kernels/isa.h"
#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

constexpr float SIGMAS = 6.5f;          // missed with a probability of 4e-11
constexpr float SPREAD = 255 / 12.0f;   // variance of an even number of 0 ... 15
constexpr float SQUARE = 16385 / 3.0f;  // mean square of an even number of -128 ... 127, at most
constexpr int MOST_GROUPS = 512;

template <int T>
INLINE void sketch_rows(const Weights& w, int begin, int end, const Inputs& x, float* y, float* variance, size_t stride,
                        const uint8_t* next) {
    const size_t cols = x.cols, groups = cols / GROUP;
    float energy[T][MOST_GROUPS];  // of the inputs of a group
    float size[T][MOST_GROUPS],
        middle[T][MOST_GROUPS];  // scale of its codes, and their sum times the middle of weights
    for (int t = 0; t < T; t++)
        for (size_t g = 0; g < groups; g++) {
            int32_t squares = 0, below = 0, total = 0;
            for (int k = 0; k < GROUP; k++) {
                const int32_t code = x.codes[t * cols + g * GROUP + k], low = x.low[t * cols + g * GROUP + k];
                squares += code * code, below += low * low, total += code;
            }
            const float scale = x.scale[t * groups + g], whole = 256 * scale;
            energy[t][g] = SPREAD * whole * whole * float(squares) + SQUARE * scale * scale * float(below);
            size[t][g] = whole, middle[t][g] = -120.5f * float(total);
        }
    const uint8_t* last = w.block(end);
    for (int b = begin; b < end; b++) {
        const Int8Upper* tiles = w.upper(b);
        const uint8_t* far = w.block(b) + AHEAD;
        if (far >= last && next) far = next + (far - last);
        F sums[T], spreads[T];
        for (int t = 0; t < T; t++) sums[t] = spreads[t] = zero();
        for (size_t g = 0; g < groups; g++) {
            for (size_t i = 0; i < sizeof(Int8Upper); i += 64) prefetch(far + g * sizeof(Int8Upper) + i);
            I dots[T];
            for (int t = 0; t < T; t++) dots[t] = izero();
#pragma GCC unroll 4
            for (int z = 0; z < 4; z++) {
                const B both = load_bytes(tiles[g].codes[z]), lower = low(both), upper = high(both);
#pragma GCC unroll 2
                for (int t = 0; t < T; t++) {
                    const int8_t* at = x.codes + t * cols + g * GROUP + 8 * z;
                    dots[t] = dot_nibbles(dots[t], lower, spread(at));
                    dots[t] = dot_nibbles(dots[t], upper, spread(at + 4));
                }
            }
            const F scale = load_half(tiles[g].scale), square = mul(scale, scale);
#pragma GCC unroll 2
            for (int t = 0; t < T; t++) {  // weight ≈ scale * (16 upper + 7.5 - 128)
                const F dot = fma(set(16), to_float(dots[t]), set(middle[t][g]));
                sums[t] = fma(mul(scale, set(size[t][g])), dot, sums[t]);
                spreads[t] = fma(square, set(energy[t][g]), spreads[t]);
            }
        }
        const int rest = w.rows - b * ROWS;  // rows that are none can never win
        for (int t = 0; t < T; t++) {
            const F kept = rest >= ROWS ? sums[t] : select((1u << rest) - 1, sums[t], set(-INFINITY));
            store(y + t * stride + b * ROWS, kept);
            store(variance + t * stride + b * ROWS, spreads[t]);
        }
    }
}

}  // namespace

void sketch(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, float* variance, size_t stride,
            const uint8_t* next) {
    if (T == 1)
        sketch_rows<1>(w, begin, end, x, y, variance, stride, next);
    else
        sketch_rows<2>(w, begin, end, x, y, variance, stride, next);
}

int contenders(const float* y, const float* variance, int n, float best, float best_variance, int* found) {
    int count = 0;
    for (int i = 0; i < n; i += ROWS) {
        const F behind = sub(set(best), load(y + i));
        const F reach = mul(set(SIGMAS), sqrt(add(load(variance + i), set(best_variance))));
        if (any_below(behind, reach)) found[count++] = i / ROWS;
    }
    return count;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
