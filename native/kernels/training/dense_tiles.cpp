// Products of bfloat16 matrices in training, on AMX tiles with float32 sums: 32 lines and 32 columns at a time.
//
// Two panels stay in the first or second cache while all lines pass. Lines of results are fetched while the product is
// computed, since stores of them would wait for memory, and what a product gave is rounded during the next one.
#include "kernels/chunks.h"
#include "kernels/isa.h"
#include "kernels/tiles.h"
#include "kernels/training/products.h"
#include "training/product_jobs.h"

namespace riyaz {
namespace RIYAZ_ISA {

#if defined(RIYAZ_TILES)
namespace {

constexpr int STEP = TILE_STRIP;  // lines, and columns, of 2 x 2 tiles
constexpr int HALF = TILE_PANEL;

// Adds the lines from `line` on, times two panels, to the sums in tiles 0 ... 3: [2 tiles of lines][2 panels]. Calls
// meanwhile(i) for i = 0, 2, ... STEP - 2 between tile instructions, which leave the rest of the core idle.
template <class Body>
INLINE void multiply(const TileJob& job, int line, int pair, const Body& meanwhile) {
    const uint16_t* left = job.panels + size_t(2 * pair) * job.panel;
    const uint16_t* right = (2 * pair + 1) * HALF < job.width ? left + job.panel : left;
    written();
    int i = 0;
    for (int part = 0; part < job.count; part++) {
        const TileRun& run = job.runs[part];
        const uint16_t* own = run.lines + size_t(line) * run.line;
        const size_t row = run.line * 2, lower = HALF * run.line;
        for (int k = 0; k < run.steps; k++, own += run.step, left += PANEL_STEP, right += PANEL_STEP) {
            if (i < STEP) meanwhile(i), i += 2;
            _tile_loadd(6, left, 64);
            _tile_stream_loadd(4, own, row);
            _tile_loadd(7, right, 64);
            _tile_stream_loadd(5, own + lower, row);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    for (; i < STEP; i += 2) meanwhile(i);
}

// Sums of up to 32 lines and columns, which are scaled and rounded to `y` one line after the other
struct TileResults {
    const float* sums;  // [STEP][STEP]
    MatrixView y;       // from the first line and column on
    int lines, width;
    F left, right, scale;  // the bias, and by what sums are multiplied before
    bool past;             // lines are written past the caches

    INLINE_MEMBER void finish(int i) const {
        if (i >= lines) return;
        const F first = fma(scale, load(sums + i * STEP), left),
                second = fma(scale, load(sums + i * STEP + HALF), right);
        auto* to = (uint16_t*)y.data + size_t(i) * y.row;
        if (past) return _mm512_stream_si512((__m512i*)to, (__m512i)rounded(first, second));
        if (width == STEP) return store_bytes(to, rounded(first, second));
        store_some(to, first, min_of(width, HALF));
        if (width > HALF) store_some(to + HALF, second, width - HALF);
    }
};

INLINE F bias_of(const uint16_t* bias, int from, int width) {
    return bias && from < width ? load_some(bias + from, min_of(HALF, width - from)) : zero();
}

// Copies the lines and columns that exist between `total` and `sums` [STEP][STEP].
INLINE void copy_part(float* total, size_t row, float* sums, int lines, int width, bool to_total) {
    for (int i = 0; i < lines; i++) {
        float *outer = total + size_t(i) * row, *inner = sums + i * STEP;
        memcpy(to_total ? outer : inner, to_total ? inner : outer, size_t(width) * 4);
    }
}

}  // namespace

void tile_lines(const TileJob& job, float* sums, bool begins, bool ends, const uint16_t* bias, const MatrixView& y) {
    configure_tiles();
    alignas(64) float last[STEP * STEP];
    TileResults before = {};
    const bool past = job.large && (uintptr_t)y.data % 64 == 0 && y.row % STEP == 0;  // whole lines of the cache
    const int lines = padded(job.lines, STEP);
    for (int pair = 0; pair < job.pairs(); pair++) {
        const int column = pair * STEP;
        const F left = bias_of(bias, column, job.width), right = bias_of(bias, column + HALF, job.width);
        for (int line = 0; line < job.lines; line += STEP) {
            float* kept = sums + (size_t(pair) * lines + line) * STEP;
            const TileResults own = {last,
                                     y.from(size_t(line), size_t(column)),
                                     min_of(STEP, job.lines - line),
                                     min_of(STEP, job.width - column),
                                     left,
                                     right,
                                     set(job.scale),
                                     past && job.width - column >= STEP};
            begins ? zero_sums() : load_sums(kept, STEP);
            multiply(job, line, pair, [&](int i) {
                before.finish(i), before.finish(i + 1);
                if (!ends || own.past) return;
                for (int l = i; l < min_of(i + 2, own.lines); l++) {
                    const auto* at = (const uint16_t*)own.y.data + size_t(l) * y.row;
                    __builtin_prefetch(at, 1), __builtin_prefetch(at + own.width - 1, 1);
                }
            });
            store_sums(ends ? last : kept, STEP);
            if (ends) before = own;
        }
    }
    for (int i = 0; i < STEP; i++) before.finish(i);
}

void tile_sums(const TileJob& job, float* total, size_t row) {
    configure_tiles();
    alignas(64) float part[STEP * STEP] = {};
    for (int pair = 0; pair < job.pairs(); pair++)
        for (int line = 0; line < job.lines; line += STEP) {
            float* at = total + size_t(line) * row + pair * STEP;
            const int lines = min_of(STEP, job.lines - line), width = min_of(STEP, job.width - pair * STEP);
            const bool whole = lines == STEP && width == STEP;
            if (whole)
                load_sums(at, row);
            else
                copy_part(at, row, part, lines, width, false), load_sums(part, STEP);
            const int following = min_of(STEP, job.lines - line - STEP);  // lines of the next tiles, which are fetched
            multiply(job, line, pair, [&](int i) {
                for (int l = i; l < min_of(i + 2, following); l++) {
                    const float* next = at + size_t(STEP + l) * row;
                    __builtin_prefetch(next, 1), __builtin_prefetch(next + width - 1, 1);
                }
            });
            if (whole)
                store_sums(at, row);
            else
                store_sums(part, STEP), copy_part(at, row, part, lines, width, true);
        }
}

void strips_of_columns(const MatrixView& m, int lines, int width, uint16_t* out, size_t strip) {
    alignas(64) static const uint16_t nothing[16] = {};
    for (int l = 0; l < lines; l += TILE_STRIP, out += strip) {
        const auto* own = (const uint16_t*)m.data + size_t(l) * m.row;
        for (int c = 0; c < width; c += 16) {
            const int n = min_of(16, width - c);
            B words[16];
            for (int i = 0; i < 16; i++) {  // word i of column c: lines 2 i and 2 i + 1
                const uint16_t* two[2];
                uint16_t part[2][16];
                for (int j = 0; j < 2; j++) {
                    const int line = l + 2 * i + j;
                    two[j] = line < lines ? own + size_t(2 * i + j) * m.row + c : nothing;
                    if (n == 16 || line >= lines) continue;
                    memset(part[j], 0, sizeof part[j]), memcpy(part[j], two[j], size_t(n) * 2);
                    two[j] = part[j];
                }
                words[i] = paired_lines(two[0], two[1]);
            }
            turn_words(words);
            for (int i = 0; i < n; i++) store_bytes(out + size_t(c + i) * TILE_STRIP, words[i]);
        }
    }
}

#endif

}  // namespace RIYAZ_ISA
}  // namespace riyaz
