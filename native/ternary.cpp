// Ternary weights: from codes to packed bytes, from one packing to the other, and which of the two is quicker here.
#include <chrono>
#include <cmath>

#include "pack.h"

namespace riyaz {
namespace {

constexpr uint8_t POWERS[] = {1, 3, 9, 27, 81};
constexpr size_t SAMPLE = size_t(64) << 20;  // most bytes of what is measured at 1.6 bits
constexpr double SECONDS = 0.025;            // of measuring each, but for one pass at least
constexpr double GAIN = 1.03;                // that is worth packing anew

int word_columns(Format format) { return format == Format::trits ? TRITS : TERNARY; }

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
    const bool is_trits = w.format == Format::trits;
    const int width = word_columns(w.format), groups = padded(w.cols, w.group) / w.group;
    return each_row(first, rows, [&](int row) {
        const int8_t* from = codes + size_t(row - first) * cols;
        bool finite = true;
        for (int g = 0; g < groups; g++) {
            const int begin = g * w.group, count = std::min(w.group, w.cols - begin);
            auto* words = (TernaryWord*)w.ternary_group(row / ROWS, g);
            for (int c = 0; c < std::min(count, cols - begin); c++) {
                const int place = c % width / 4, code = from[begin + c] + 1;
                words[c / width][row % ROWS][c % 4] += uint8_t(is_trits ? code * POWERS[place] : code << 2 * place);
            }
            const float scale = scales[size_t(row - first) * groups + g];
            ((float*)(words + padded(count, width) / width))[row % ROWS] = scale;
            finite = finite && std::isfinite(scale);
        }
        return finite;
    });
}

Matrix repacked(const Matrix& matrix, Format format) {
    const Weights& from = matrix.weights;
    Matrix out(format, from.rows, from.cols, 0);
    const int places = word_columns(from.format) / 4, own_places = word_columns(format) / 4;
    each_row(0, from.blocks() * ROWS, [&](int row) {
        if (row % ROWS) return true;  // all rows of a block at once
        const uint8_t* words = from.ternary_group(row / ROWS, 0);
        auto* to = (uint8_t*)out.weights.ternary_group(row / ROWS, 0);
        for (int q = 0; q < from.cols / 4; q++) {  // 4 columns
            const uint8_t* word = words + q / places * sizeof(TernaryWord);
            uint8_t* own = to + q / own_places * sizeof(TernaryWord);
            const int place = q % places, power = format == Format::trits ? POWERS[q % own_places] : 1 << 2 * (q % 4);
            for (size_t i = 0; i < sizeof(TernaryWord); i++) {
                const int code = places == 4 ? word[i] >> 2 * place & 3 : word[i] / POWERS[place] % 3;
                own[i] = uint8_t(own[i] + code * power);
            }
        }
        const auto end = [&](int at) { return padded(from.cols, 4 * at) / (4 * at) * sizeof(TernaryWord); };
        memcpy(to + end(own_places), words + end(places), sizeof(float[ROWS]));
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
        if (!tensor.matrix || w.format != Format::ternary || w.group != w.cols) continue;
        own.push_back(&w), weights += double(w.rows) * w.cols;
    }
    if (own.empty()) return Format::ternary;
    int rows = 0, cols = 0;
    for (const Weights* w : own) rows = std::max(rows, w->rows), cols = std::max(cols, w->cols);
    std::vector<Matrix> sample;
    std::vector<const Weights*> sampled;
    double sampled_weights = 0;
    for (size_t i = 0, bytes = 0; i < own.size() && bytes < SAMPLE; i++) {
        sample.emplace_back(Format::trits, own[i]->rows, own[i]->cols, 0);
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
        if (!tensor.matrix || !is_ternary(w.format) || w.format == format || w.group != w.cols) continue;
        Matrix other = repacked(tensor.matrix, format);
        saved += int64_t(tensor.matrix.size()) - int64_t(other.size());
        tensor.matrix = std::move(other);
    }
    return saved;
}

}  // namespace riyaz
