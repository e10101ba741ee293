// Attention on AMX tiles: queries and weights are rounded to bfloat16, sums are float32.
//
// A block is 32 rows, each a query head of one token, in two tiles. It goes through chunks of 8 pages: scores of all,
// then the weights, then values times weights. Each row has its own maximum, and what it does not see has weight zero,
// so a row depends on nothing in other rows; and chunks are counted from the sequence's beginning, whatever rows see.
#include "kernels/attention/attention.h"
#include "kernels/tiles.h"

#if defined(__AMX_BF16__)

namespace riyaz {
namespace RIYAZ_ISA {

namespace {

constexpr int ROW_BYTES = 64;  // of a tile
constexpr int TILE = 16;       // rows of a tile
constexpr int BLOCK = 32;      // rows that go through the pages together: keys and values are loaded once for two tiles
constexpr int CHUNK = 8;       // pages
constexpr float HIDDEN = -1e30f, LOWEST = -1e29f;  // scores of slots not seen; the largest score before there is one

struct Page {
    const uint8_t *keys, *values;
    bool whole;            // every row sees all slots
    uint32_t mask[BLOCK];  // else the slots that each row sees
};

struct Block {
    alignas(64) uint16_t q[BLOCK * MAX_HEAD];  // [D / 32][row][32]
    alignas(64) float out[BLOCK * MAX_HEAD];   // [D / 16][row][16]: sums of weights times values
    // [page][half][row][slot]; a row's 32 weights in bfloat16 replace its scores of the first half, which takes less of
    // the first-level cache
    alignas(64) float scores[CHUNK][2][BLOCK][16];
    __m512 sum[BLOCK];                 // of weights, by slot modulo 16
    alignas(64) float largest[BLOCK];  // score so far
    int tokens[BLOCK];                 // of the rows
    int rows, D;                       // D: padded
    bool started;                      // `out` holds something
    Page pages[CHUNK];                 // those of the chunk in which a row sees something
    int count;                         // of pages
};

// The first n of 16 lanes
INLINE __mmask16 up_to(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : __mmask16((1u << n) - 1); }

// The queries of the rows from `begin` on; rows and dimensions that are left over are zeros.
void begin_block(Block& block, const Attention& job, int begin) {
    const int left = job.n * job.G - begin;
    block.rows = left < BLOCK ? left : BLOCK;
    block.started = false;
    int token = begin / job.G, head = begin % job.G;
    for (int r = 0; r < BLOCK; r++) {
        const int size = r < block.rows ? job.head : 0;
        const float* q = job.q + token * job.q_stride + head * job.head;
        for (int d = 0; d < block.D; d += 32) {
            const __m512 low = _mm512_maskz_loadu_ps(up_to(size - d), q + d);
            const __m512 high = _mm512_maskz_loadu_ps(up_to(size - d - 16), q + d + 16);
            _mm512_store_si512(block.q + (d / 32 * BLOCK + r) * 32, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
        block.sum[r] = zero();
        block.largest[r] = LOWEST;
        block.tokens[r] = token;
        if (r + 1 < block.rows && ++head == job.G) token++, head = 0;
    }
}

// The pages of up to CHUNK segments in which a row sees something
void choose_pages(Block& block, const Attention& job, const Segment* segments, int count) {
    const int first = job.position + block.tokens[0], last = job.position + block.tokens[BLOCK - 1];
    block.count = 0;
    for (int s = 0; s < count && segments[s].first <= last; s++) {
        Page& page = block.pages[block.count];
        page.keys = segments[s].page + job.keys, page.values = segments[s].page + job.values;
        const uint32_t all = visible(segments[s], first, job.window) & visible(segments[s], last, job.window);
        page.whole = all == ~0u;
        uint32_t any = all;
        for (int r = 0; r < BLOCK && !page.whole; r++) {
            const bool same = r && block.tokens[r] == block.tokens[r - 1];
            page.mask[r] = same ? page.mask[r - 1] : visible(segments[s], job.position + block.tokens[r], job.window);
            any |= page.mask[r];
        }
        if (any) block.count++;
    }
}

INLINE void score(Block& block, int p) {
    const int half = block.D / 2 * 64;  // bytes of the keys of 16 slots
    const uint8_t* keys = block.pages[p].keys;
    const uint16_t* q = block.q;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < block.D; d += 32, q += BLOCK * 32, keys += TILE * ROW_BYTES) {
        _tile_loadd(4, q, ROW_BYTES);
        _tile_loadd(6, keys, ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, keys + half, ROW_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, q + TILE * 32, ROW_BYTES);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, block.scores[p][0][0], ROW_BYTES);
    _tile_stored(1, block.scores[p][1][0], ROW_BYTES);
    _tile_stored(2, block.scores[p][0][TILE], ROW_BYTES);
    _tile_stored(3, block.scores[p][1][TILE], ROW_BYTES);
}

INLINE void hide(Block& block, int p) {
    const __m512 hidden = set(HIDDEN);
    for (int r = 0; r < block.rows; r++) {
        const uint32_t mask = block.pages[p].mask[r];
        float *low = block.scores[p][0][r], *high = block.scores[p][1][r];
        store(low, select(mask & 0xffff, load(low), hidden));
        store(high, select(mask >> 16, load(high), hidden));
    }
}

// The largest scores of 16 rows from r on; where they are new, earlier sums are scaled down to them.
INLINE void find_largest(Block& block, int r) {
    alignas(64) float own[TILE];
    for (int i = 0; i < TILE; i++) {
        F most = set(LOWEST);
        for (int p = 0; p < block.count; p++)
            most = max(most, max(load(block.scores[p][0][r + i]), load(block.scores[p][1][r + i])));
        own[i] = max_of(most);
    }
    const F before = load(block.largest + r), now = max(before, load(own));
    if (!block.started) return store(block.largest + r, now);
    store(own, exp2(mul(sub(before, now), set(LOG2_E))));
    store(block.largest + r, now);
    for (int i = 0; i < TILE; i++) {
        if (own[i] == 1) continue;
        const F scale = set(own[i]);
        block.sum[r + i] = mul(block.sum[r + i], scale);
        for (int d = 0; d < block.D; d += 16) {
            float* out = block.out + d * BLOCK + (r + i) * 16;
            store(out, mul(load(out), scale));
        }
    }
}

// Turns the scores of a row into weights.
INLINE void weigh(Block& block, int r) {
    const F factor = set(LOG2_E), level = set(-block.largest[r] * LOG2_E);
    F sum = block.sum[r];
    for (int p = 0; p < block.count; p++) {
        const F low = exp2(fma(load(block.scores[p][0][r]), factor, level));
        const F high = exp2(fma(load(block.scores[p][1][r]), factor, level));
        sum = add(sum, add(low, high));
        _mm512_store_si512(block.scores[p][0][r], (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    block.sum[r] = sum;
}

// Adds weights times values for dimensions d ... d + 31
INLINE void mix(Block& block, int d) {
    float *first = block.out + d * BLOCK, *second = first + BLOCK * 16;
    if (block.started) {
        _tile_loadd(0, first, ROW_BYTES);
        _tile_loadd(1, second, ROW_BYTES);
        _tile_loadd(2, first + TILE * 16, ROW_BYTES);
        _tile_loadd(3, second + TILE * 16, ROW_BYTES);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int p = 0; p < block.count; p++) {
        const uint8_t* values = block.pages[p].values + d * 4;
        _tile_loadd(4, block.scores[p][0][0], ROW_BYTES);
        _tile_loadd(6, values, block.D * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, values + 64, block.D * 4);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, block.scores[p][0][TILE], ROW_BYTES);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, first, ROW_BYTES);
    _tile_stored(1, second, ROW_BYTES);
    _tile_stored(2, first + TILE * 16, ROW_BYTES);
    _tile_stored(3, second + TILE * 16, ROW_BYTES);
}

void attend_chunk(Block& block) {
    written();
    for (int p = 0; p < block.count; p++) score(block, p);
    for (int p = 0; p < block.count; p++)
        if (!block.pages[p].whole) hide(block, p);
    for (int r = 0; r < block.rows; r += TILE) find_largest(block, r);
    for (int r = 0; r < block.rows; r++) weigh(block, r);
    written();
    for (int d = 0; d < block.D; d += 32) mix(block, d);
    block.started = true;
}

void finish_block(const Block& block, const Attention& job, int begin) {
    int head = begin % job.G;
    for (int r = 0; r < block.rows; r++) {
        float* out = job.out + block.tokens[r] * job.out_stride + head * job.head;
        head = head + 1 < job.G ? head + 1 : 0;
        const __m512 share = set(1.0f / sum_of(block.sum[r]));
        for (int d = 0; d < job.head; d += 16) {
            const __m512 result = mul(load(block.out + d * BLOCK + r * 16), share);
            _mm512_mask_storeu_ps(out + d, up_to(job.head - d), result);
        }
    }
}

}  // namespace

void attend_tiles(const Attention& job) {
    configure_tiles();
    Block block;
    block.D = padded(job.head, 32);
    for (int begin = 0; begin < job.n * job.G; begin += BLOCK) {
        begin_block(block, job, begin);
        for (int s = 0; s < job.count; s += CHUNK) {
            choose_pages(block, job, job.segments + s, job.count - s < CHUNK ? job.count - s : CHUNK);
            if (block.count) attend_chunk(block);
        }
        finish_block(block, job, begin);
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz

#endif
