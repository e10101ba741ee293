#include "training_codes.h"

#include <algorithm>
#include <memory>
#include <new>

#include "numbers.h"
#include "training_team.h"

namespace riyaz {
namespace {

constexpr size_t TOKENS = 512;  // whose inputs stay in the second cache while weights pass
constexpr size_t ENCODED = 32;  // tokens that one thread encodes at a time
constexpr int BLOCKS = 2;       // of rows, of a part of a product: as many as are unpacked at a time
constexpr size_t WIDTH = size_t(BLOCKS) * ROWS;

struct Release {
    void operator()(void* at) const { ::operator delete[](at, std::align_val_t(64)); }
};
template <class Number>
using Space = std::unique_ptr<Number[], Release>;

template <class Number>
Space<Number> space(size_t count) {
    return Space<Number>((Number*)::operator new[](count * sizeof(Number), std::align_val_t(64)));
}

const float* widen(const uint16_t* bits, float* out, int n) {
    for (int i = 0; i < n; i++) out[i] = from_bf16(bits[i]);
    return out;
}

// Rows of floats [n][WIDTH], of which `width` numbers count, into bfloat16 with `stride`
void round_rows(const Kernels& k, const float* from, size_t n, size_t width, uint16_t* to, size_t stride) {
    for (size_t t = 0; t < n; t++) {
        const float* row = from + t * WIDTH;
        if (width == WIDTH)
            k.round_sum(&row, 1, int(WIDTH), to, t * stride, true);
        else
            for (size_t r = 0; r < width; r++) to[t * stride + r] = to_bf16(row[r]);
    }
}

// Its opposite: the rows of bfloat16 as floats [n][WIDTH]
void widen_rows(const uint16_t* from, size_t stride, size_t n, size_t width, float* to) {
    for (size_t t = 0; t < n; t++) widen(from + t * stride, to + t * WIDTH, int(width));
}

// The inputs of all tokens in the form that a product with many tokens takes
struct Encoded {
    Space<int8_t> codes;
    Space<float> scale, sum;
    Space<int32_t> total;
    Space<uint16_t> bf16;
    Inputs in;

    Encoded(const Kernels& k, const Weights& w, size_t T) {
        in.cols = w.cols;
        if (k.wide_kind == Wide::tiles) {
            bf16 = space<uint16_t>((T + 31) / 32 * 32 * w.cols), in.bf16 = bf16.get();
            return;
        }
        codes = space<int8_t>(T * w.cols), in.codes = codes.get();
        scale = space<float>(T * w.groups()), in.scale = scale.get();
        sum = space<float>(T * w.groups()), in.sum = sum.get();
        total = space<int32_t>(T * w.groups()), in.total = total.get();
    }
};

}  // namespace

void code_product(const Kernels& k, const Weights& w, int cols, const void* x, size_t T, bool bf16, void* y, bool add,
                  int threads) {
    const Encoded encoded(k, w, T);
    const bool wide = k.wide_kind != Wide::none;
    const size_t rows = size_t(w.rows);
    const auto lines = space<float>(bf16 ? size_t(cols) * threads : 0);
    share(int((T + ENCODED - 1) / ENCODED), threads, [&](int part, int thread) {
        for (size_t t = part * ENCODED; t < std::min(T, (part + 1) * ENCODED); t++) {
            const float* line = (const float*)x + t * cols;
            if (bf16) line = widen((const uint16_t*)x + t * cols, lines.get() + size_t(cols) * thread, cols);
            (wide ? k.wide_inputs : k.inputs)(line, cols, encoded.in.from(int(t)));
        }
    });

    const int pieces = int((T + TOKENS - 1) / TOKENS), strips = (w.blocks() + BLOCKS - 1) / BLOCKS;
    const size_t scratch = wide_scratch(w.cols), held = bf16 ? TOKENS * WIDTH : 0;
    const auto scratches = space<uint8_t>(scratch * threads);
    const auto floats = space<float>(held * threads);
    share(pieces * strips, threads, [&](int part, int thread) {
        const size_t first = size_t(part / strips) * TOKENS, n = std::min(T - first, TOKENS);
        const int begin = part % strips * BLOCKS, end = std::min(begin + BLOCKS, w.blocks()), row = begin * ROWS;
        float* results = floats.get() + held * thread;
        float* out = bf16 ? results - row : (float*)y + first * rows;  // of row 0
        const size_t stride = bf16 ? WIDTH : rows;
        const size_t width = std::min(WIDTH, rows - row);
        uint16_t* const rounded = (uint16_t*)y + first * rows + row;
        const Inputs in = encoded.in.from(int(first));
        if (bf16 && add) widen_rows(rounded, rows, n, width, results);
        if (wide)
            k.wide(w, begin, end, in, int(n), out, stride, add, scratches.get() + scratch * thread);
        else
            k.narrow(w, begin, end, in, int(n), out, stride, add, nullptr);
        if (bf16) round_rows(k, results, n, width, rounded, rows);
    });
}

}  // namespace riyaz
