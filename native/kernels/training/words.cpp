// Words of bfloat16 matrices, from which products in training are made: in pairs or in tiles.
#include "kernels/chunks.h"
#include "kernels/isa.h"
#include "kernels/training/products.h"
#include "training/product_jobs.h"

#if defined(RIYAZ_PAIRS) || defined(RIYAZ_TILES)

namespace riyaz {
namespace RIYAZ_ISA {
namespace {

constexpr int LINES_AHEAD = 4;  // that are prefetched

}  // namespace

void turned_words(const MatrixView& m, int lines, int pairs, float* out, int stride) {
    for (int first = 0; first < lines; first += 16) {
        const uint16_t* rows[16];  // the last line again where there are fewer
        for (int i = 0; i < 16; i++) rows[i] = (const uint16_t*)m.data + size_t(min_of(first + i, lines - 1)) * m.row;
        float* to = out + first;
        int k = 0;
        for (; k + 16 <= pairs; k += 16) {
            B words[16];
            for (int i = 0; i < 16; i++) words[i] = load_bytes(rows[i] + 2 * k);
            turn_words(words);
            for (int i = 0; i < 16; i++) store_bytes(to + size_t(k + i) * size_t(stride), words[i]);
        }
        for (; k < pairs; k++)
            for (int i = 0; i < 16; i++) memcpy(to + size_t(k) * size_t(stride) + i, rows[i] + 2 * k, 4);
    }
}

void words_in_strips(const MatrixView& m, int lines, int width, int each, float* out, size_t apart) {
    for (int l = 0; l < lines; l += 2, out += each) {
        const auto* own = (const uint16_t*)m.data + size_t(l) * m.row;
        const bool last = l + 1 == lines;
        const uint16_t* next = last ? own : own + m.row;
        float* to = out;
        for (int begin = 0; begin < width; begin += each, to += apart) {
            const int end = min_of(begin + each, width);
            int c = begin;
            for (; c + 16 <= end && !last; c += 16) {
                prefetch(own + LINES_AHEAD * m.row + c), prefetch(next + LINES_AHEAD * m.row + c);
                store_bytes(to + c - begin, paired_lines(own + c, next + c));
            }
            for (; c < end; c += 16) {
                const int n = min_of(16, end - c);
                store_bytes(to + c - begin, paired(load_some(own + c, n), last ? zero() : load_some(next + c, n)));
            }
        }
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
