// Attention on AMX tiles: queries and weights are rounded to bfloat16, sums are float32.
//
// A tile is 16 rows, each a query head of one token. It goes through chunks of 8 pages: scores of all pages, then the
// weights, then values times weights. Each row has its own maximum, and what it does not see has weight zero, so a row
// depends on nothing in other rows; and chunks are counted from the sequence's beginning, whatever the rows see.
#include "attention.h"

#if defined(__AMX_BF16__)

namespace riyaz {
namespace RIYAZ_ISA {

namespace {

constexpr int ROW_BYTES = 64;  // of a tile
constexpr int TILE = 16;       // rows
constexpr int CHUNK = 8;       // pages
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float HIDDEN = -1e30f, LOWEST = -1e29f;  // scores of slots not seen; the largest score before there is one

struct Page {
    const uint8_t *keys, *values;
    bool whole;           // every row sees all slots
    uint32_t mask[TILE];  // else the slots that each row sees
};

struct Tile {
    alignas(64) uint16_t q[TILE * MAX_HEAD];           // [D / 32][row][32]
    alignas(64) float out[TILE * MAX_HEAD];            // [D / 16][row][16]: sums of weights times values
    alignas(64) float scores[CHUNK][2][TILE][16];      // [page][half][row][slot]
    alignas(64) uint16_t weights[CHUNK][TILE][SLOTS];  // [page][row][slot]
    __m512 sum[TILE];                                  // of weights, by slot modulo 16
    float largest[TILE];                               // score so far
    int tokens[TILE];                                  // of the rows
    int rows, D;                                       // D: padded
    Page pages[CHUNK];                                 // those of the chunk in which a row sees something
    int count;                                         // of pages
    bool started;                                      // `out` holds something
};

// All 8 tiles have 16 rows of 64 bytes.
void configure() {
    struct {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int i = 0; i < 8; i++) config.bytes[i] = ROW_BYTES, config.rows[i] = TILE;
    _tile_loadconfig(&config);
}

// Loads of tiles do not tell the compiler that they read memory.
INLINE void written() { asm volatile("" ::: "memory"); }

// The first n of 16 lanes
INLINE __mmask16 up_to(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : __mmask16((1u << n) - 1); }

// 2^x to 2e-7: the fraction by a polynomial of degree 5; zero for HIDDEN scores
INLINE __m512 exp2(__m512 x) {
    const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = set(1.8775767e-3f);
    p = fma(p, r, set(8.9893397e-3f));
    p = fma(p, r, set(5.5826318e-2f));
    p = fma(p, r, set(2.4015361e-1f));
    p = fma(p, r, set(6.9315308e-1f));
    p = fma(p, r, set(9.9999994e-1f));
    return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}

// The queries of the rows from `begin` on; rows and dimensions that are left over are zeros.
void begin_tile(Tile& tile, const Attention& job, int begin) {
    const int left = job.n * job.G - begin;
    tile.rows = left < TILE ? left : TILE;
    tile.started = false;
    for (int r = 0; r < TILE; r++) {
        tile.sum[r] = zero();
        tile.largest[r] = LOWEST;
        tile.tokens[r] = (begin + (r < tile.rows ? r : tile.rows - 1)) / job.G;
        const float* q = job.q + tile.tokens[r] * job.q_stride + (begin + r) % job.G * job.head;
        const int head = r < tile.rows ? job.head : 0;
        for (int d = 0; d < tile.D; d += 32) {
            const __m512 low = _mm512_maskz_loadu_ps(up_to(head - d), q + d);
            const __m512 high = _mm512_maskz_loadu_ps(up_to(head - d - 16), q + d + 16);
            _mm512_store_si512(tile.q + (d / 32 * TILE + r) * 32, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

// The pages of up to CHUNK segments in which a row sees something
void choose_pages(Tile& tile, const Attention& job, const Segment* segments, int count) {
    const int first = job.position + tile.tokens[0], last = job.position + tile.tokens[TILE - 1];
    tile.count = 0;
    for (int s = 0; s < count; s++) {
        const uint32_t all = visible(segments[s], first, job.window) & visible(segments[s], last, job.window);
        Page& page = tile.pages[tile.count];
        page.keys = segments[s].page + job.keys, page.values = segments[s].page + job.values;
        page.whole = all == ~0u;
        uint32_t any = all;
        for (int r = 0; r < TILE && !page.whole; r++) {
            const bool same = r && tile.tokens[r] == tile.tokens[r - 1];
            page.mask[r] = same ? page.mask[r - 1] : visible(segments[s], job.position + tile.tokens[r], job.window);
            any |= page.mask[r];
        }
        if (any) tile.count++;
    }
}

// Scores of two pages, which may be the same
INLINE void score(Tile& tile, int a, int b) {
    const int half = tile.D / 2 * 64;  // bytes of the keys of 16 slots
    const uint8_t *first = tile.pages[a].keys, *second = tile.pages[b].keys;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < tile.D; d += 32, first += TILE * ROW_BYTES, second += TILE * ROW_BYTES) {
        _tile_loadd(4, tile.q + d * TILE, ROW_BYTES);
        _tile_loadd(5, first, ROW_BYTES);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, first + half, ROW_BYTES);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, second, ROW_BYTES);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, second + half, ROW_BYTES);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, tile.scores[a][0], ROW_BYTES);
    _tile_stored(1, tile.scores[a][1], ROW_BYTES);
    _tile_stored(2, tile.scores[b][0], ROW_BYTES);
    _tile_stored(3, tile.scores[b][1], ROW_BYTES);
}

INLINE void hide(Tile& tile, int p) {
    const __m512 hidden = set(HIDDEN);
    for (int r = 0; r < TILE; r++) {
        const uint32_t mask = tile.pages[p].mask[r];
        float *low = tile.scores[p][0][r], *high = tile.scores[p][1][r];
        store(low, select(mask & 0xffff, load(low), hidden));
        store(high, select(mask >> 16, load(high), hidden));
    }
}

// Turns the scores of a row into weights; where they hold a new largest score, earlier sums are scaled down to it.
INLINE void weigh(Tile& tile, int r) {
    __m512 most = set(tile.largest[r]);
    for (int p = 0; p < tile.count; p++)
        most = max(most, max(load(tile.scores[p][0][r]), load(tile.scores[p][1][r])));
    const float largest = max_of(most);
    __m512 sum = tile.sum[r];
    if (largest > tile.largest[r]) {
        const __m512 scale = exp2(set((tile.largest[r] - largest) * LOG2_E));
        tile.largest[r] = largest;
        sum = mul(sum, scale);
        for (int d = 0; d < tile.D && tile.started; d += 16) {
            float* out = tile.out + d * TILE + r * 16;
            store(out, mul(load(out), scale));
        }
    }
    const __m512 factor = set(LOG2_E), level = set(-tile.largest[r] * LOG2_E);
    for (int p = 0; p < tile.count; p++) {
        const __m512 low = exp2(fma(load(tile.scores[p][0][r]), factor, level));
        const __m512 high = exp2(fma(load(tile.scores[p][1][r]), factor, level));
        sum = add(sum, add(low, high));
        _mm512_store_si512(tile.weights[p][r], (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    tile.sum[r] = sum;
}

// Adds weights times values for 64 dimensions from d, or for 32
INLINE void mix_64(Tile& tile, int d) {
    float* out = tile.out + d * TILE;
    const int stride = tile.D * 4, next = TILE * 16;
    if (tile.started) {
        _tile_loadd(0, out, ROW_BYTES);
        _tile_loadd(1, out + next, ROW_BYTES);
        _tile_loadd(2, out + 2 * next, ROW_BYTES);
        _tile_loadd(3, out + 3 * next, ROW_BYTES);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int p = 0; p < tile.count; p++) {
        const uint8_t* values = tile.pages[p].values + d * 4;
        _tile_loadd(4, tile.weights[p], ROW_BYTES);
        _tile_loadd(5, values, stride);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, values + 64, stride);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, values + 128, stride);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, values + 192, stride);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, out, ROW_BYTES);
    _tile_stored(1, out + next, ROW_BYTES);
    _tile_stored(2, out + 2 * next, ROW_BYTES);
    _tile_stored(3, out + 3 * next, ROW_BYTES);
}

INLINE void mix_32(Tile& tile, int d) {
    float* out = tile.out + d * TILE;
    const int stride = tile.D * 4, next = TILE * 16;
    if (tile.started) {
        _tile_loadd(0, out, ROW_BYTES);
        _tile_loadd(1, out + next, ROW_BYTES);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (int p = 0; p < tile.count; p++) {
        const uint8_t* values = tile.pages[p].values + d * 4;
        _tile_loadd(4, tile.weights[p], ROW_BYTES);
        _tile_loadd(5, values, stride);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, values + 64, stride);
        _tile_dpbf16ps(1, 4, 6);
    }
    _tile_stored(0, out, ROW_BYTES);
    _tile_stored(1, out + next, ROW_BYTES);
}

void attend_chunk(Tile& tile) {
    written();
    for (int p = 0; p < tile.count; p += 2) score(tile, p, p + 1 < tile.count ? p + 1 : p);
    for (int p = 0; p < tile.count; p++)
        if (!tile.pages[p].whole) hide(tile, p);
    for (int r = 0; r < TILE; r++) weigh(tile, r);
    written();
    int d = 0;
    for (; d + 64 <= tile.D; d += 64) mix_64(tile, d);
    if (d < tile.D) mix_32(tile, d);
    tile.started = true;
}

void finish_tile(const Tile& tile, const Attention& job, int begin) {
    for (int r = 0; r < tile.rows; r++) {
        float* out = job.out + tile.tokens[r] * job.out_stride + (begin + r) % job.G * job.head;
        const __m512 share = set(1.0f / sum_of(tile.sum[r]));
        for (int d = 0; d < job.head; d += 16) {
            const __m512 result = mul(load(tile.out + d * TILE + r * 16), share);
            _mm512_mask_storeu_ps(out + d, up_to(job.head - d), result);
        }
    }
}

}  // namespace

void attend_wide(const Attention& job) {
    configure();
    Tile tile;
    tile.D = padded(job.head, 32);
    for (int begin = 0; begin < job.n * job.G; begin += TILE) {
        begin_tile(tile, job, begin);
        for (int s = 0; s < job.count; s += CHUNK) {
            choose_pages(tile, job, job.segments + s, job.count - s < CHUNK ? job.count - s : CHUNK);
            if (tile.count) attend_chunk(tile);
        }
        finish_tile(tile, job, begin);
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
