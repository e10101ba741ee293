// Ternary weights: from codes to packed bytes, from one packing to the other, and which of the two is quicker here.
#include <chrono>
#include <cmath>

#include "engine/pack.h"

namespace riyaz {
namespace {

constexpr size_t SAMPLE = size_t(64) << 20;  // most bytes of what is measured at 1.6 bits
constexpr double SECONDS = 0.025;            // of measuring each, but for one pass at least
constexpr double GAIN = 1.03;                // that is worth packing anew

int word_columns(Format format) { return format == Format::trits ? TRITS : TERNARY; }

// The codes of one row as digits of its bytes
template <int BASE, int PLACES>
void put_row(const uint8_t* codes, int count, TernaryWord* words, int row) {
    for (int b = 0; b < count; b++, codes += 4 * PLACES) {
        uint32_t four = 0;  // bytes, of which none overflows
        for (int place = PLACES - 1; place >= 0; place--) {
            uint32_t own;
            memcpy(&own, codes + 4 * place, 4);
            four = four * BASE + own;
        }
        memcpy(words[b][row], &four, 4);
    }
}

// The digits of words: 64 bytes for each of their places, which are 4 columns of 16 rows
template <int BASE, int PLACES>
void read_digits(const uint8_t* words, int count, uint8_t* digits) {
    for (int b = 0; b < count; b++, words += sizeof(TernaryWord)) {
        uint8_t rest[sizeof(TernaryWord)];
        memcpy(rest, words, sizeof rest);
        for (int place = 0; place < PLACES; place++)
            for (uint8_t& byte : rest) *digits++ = byte % BASE, byte /= BASE;
    }
}

template <int BASE, int PLACES>
void write_digits(const uint8_t* digits, int count, uint8_t* words) {
    constexpr size_t SIZE = sizeof(TernaryWord);
    for (int b = 0; b < count; b++, words += SIZE, digits += PLACES * SIZE)
        for (size_t i = 0; i < SIZE; i++) {
            uint8_t byte = 0;
            for (int place = PLACES - 1; place >= 0; place--) byte = uint8_t(byte * BASE + digits[place * SIZE + i]);
            words[i] = byte;
        }
}

// One token's products, of which all threads take a share
double seconds_of(Pool& pool, const std::vector<const Weights*>& matrices, const Inputs& x, float* y) {
    const Kernels& k = kernels();
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int thread) {
        for (const Weights* w : matrices) {
            const int begin = w->blocks() * thread / pool.size(), end = w->blocks() * (thread + 1) / pool.size();
            k.ternary(*w, begin, end, x, 1, y, size_t(w->rows), false, nullptr, nullptr);
        }
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

bool pack_ternary(Matrix& matrix, int first, int rows, const int8_t* codes, const float* scales, int cols) {
    const Weights& w = matrix.weights;
    const int width = word_columns(w.format), groups = padded(w.cols, w.group) / w.group;
    return each_row(first, rows, [&](int row) {
        std::vector<uint8_t> line(padded(w.group, width));
        const int8_t* from = codes + size_t(row - first) * cols;
        bool finite = true;
        for (int g = 0; g < groups; g++) {
            const int begin = g * w.group, count = padded(std::min(w.group, w.cols - begin), width) / width;
            const int held = std::clamp(cols - begin, 0, w.group);
            for (int c = 0; c < held; c++) line[c] = uint8_t(from[begin + c] + 1);
            std::fill(line.begin() + held, line.end(), 0);  // columns that are none have the code 0
            auto* words = (TernaryWord*)w.ternary_group(row / ROWS, g);
            (w.format == Format::trits ? put_row<3, 5> : put_row<4, 4>)(line.data(), count, words, row % ROWS);
            const float scale = scales[size_t(row - first) * groups + g];
            ((float*)(words + count))[row % ROWS] = scale;
            finite = finite && std::isfinite(scale);
        }
        return finite;
    });
}

Matrix repacked(const Matrix& matrix, Format format) {
    const Weights& from = matrix.weights;
    Matrix out(format, from.rows, from.cols, from.group);
    const int groups = padded(from.cols, from.group) / from.group;
    each_row(0, from.blocks() * ROWS, [&](int row) {
        if (row % ROWS) return true;  // all rows of a block at once
        std::vector<uint8_t> digits(size_t(padded(from.group, TERNARY * TRITS / 4)) * ROWS);
        for (int g = 0; g < groups; g++) {
            const int cols = std::min(from.group, from.cols - g * from.group);
            const auto words = [&](Format own) { return padded(cols, word_columns(own)) / word_columns(own); };
            const int count = words(from.format), own_count = words(format);
            const uint8_t* read = from.ternary_group(row / ROWS, g);
            auto* write = (uint8_t*)out.weights.ternary_group(row / ROWS, g);
            std::fill(digits.begin(), digits.end(), 0);
            (from.format == Format::trits ? read_digits<3, 5> : read_digits<4, 4>)(read, count, digits.data());
            (format == Format::trits ? write_digits<3, 5> : write_digits<4, 4>)(digits.data(), own_count, write);
            memcpy(write + own_count * sizeof(TernaryWord), read + count * sizeof(TernaryWord), sizeof(float[ROWS]));
        }
        return true;
    });
    return out;
}

// Products with one token from the model's own matrices at 2 bits, which do not fit the caches if the model does not,
// and between their passes from a sample at 1.6 bits, which the passes drive out of the caches as other layers would.
Format Model::quicker_ternary() {
    std::vector<const Weights*> own;
    double weights = 0;
    for (const Tensor& tensor : tensors_) {
        const Weights& w = tensor.matrix.weights;
        if (!tensor.matrix || w.format != Format::ternary) continue;
        own.push_back(&w), weights += double(w.rows) * w.cols;
    }
    if (own.empty()) return Format::ternary;
    int rows = 0, cols = 0;
    for (const Weights* w : own) rows = std::max(rows, w->rows), cols = std::max(cols, w->cols);
    std::vector<Matrix> sample;
    std::vector<const Weights*> sampled;
    double sampled_weights = 0;
    for (size_t i = 0, bytes = 0; i < own.size() && bytes < SAMPLE; i++) {
        sample.emplace_back(Format::trits, own[i]->rows, own[i]->cols, own[i]->group);
        memset(sample[i].bytes.get(), 0, sample[i].size());
        bytes += sample[i].size(), sampled_weights += double(own[i]->rows) * own[i]->cols;
    }
    for (const Matrix& matrix : sample) sampled.push_back(&matrix.weights);
    std::vector<int8_t> codes(size_t(cols) + 64);
    std::vector<int32_t> totals(cols / TERNARY);
    std::vector<float> y(rows);
    float scale = 1;
    Inputs x;
    x.cols = cols, x.token_codes = codes.data(), x.token_scale = &scale, x.token_total = totals.data();
    double two_bits = 1e9, trits = 1e9;  // seconds for a weight
    for (double taken = 0; taken < 2 * SECONDS;) {
        const double one = seconds_of(pool_, own, x, y.data()), other = seconds_of(pool_, sampled, x, y.data());
        two_bits = std::min(two_bits, one / weights), trits = std::min(trits, other / sampled_weights);
        taken += one + other;
    }
    return two_bits > GAIN * trits ? Format::trits : Format::ternary;
}

int64_t Model::repack_ternary(Format format) {
    int64_t saved = 0;
    for (Tensor& tensor : tensors_) {
        const Weights& w = tensor.matrix.weights;
        if (!tensor.matrix || !is_ternary(w.format) || w.format == format) continue;
        Matrix other = repacked(tensor.matrix, format);
        saved += int64_t(tensor.matrix.size()) - int64_t(other.size());
        tensor.matrix = std::move(other);
    }
    return saved;
}

}  // namespace riyaz
