// Attention in float32, with keys and values read from the cache as bfloat16 or float32.
//
// A row is one query head of one token. Rows go through the pages in blocks, a few at a time, so that one conversion of
// keys and values serves several rows. Each row has its own maximum, sums and order of additions, whatever the others
// do: a page where it sees nothing adds zeros, or is left out.
#include "attention.h"

namespace riyaz {
namespace RIYAZ_ISA {

namespace {

constexpr int BLOCK = 16;  // rows that go through the pages together

// Registers hold the sums of `TOGETHER` rows times `HALVES` halves of a page (twice), or times `COLUMNS` vectors of
// dimensions. An F takes one of 32 registers with AVX-512, two of 16 with AVX2, four of 32 with NEON.
#if defined(__AVX512F__)
constexpr int TOGETHER = 4, HALVES = 2, COLUMNS = 4;
#else
constexpr int TOGETHER = 2, HALVES = 1, COLUMNS = 2;
#endif

struct Rows {
    alignas(64) float q[BLOCK * MAX_HEAD];    // [row][D]
    alignas(64) float out[BLOCK * MAX_HEAD];  // [row][D]: sums of weights times values
    alignas(64) float weights[BLOCK][SLOTS];  // scores of a page, then exp(score - largest)
    alignas(64) float sum[BLOCK][16];         // sums of weights, by slot modulo 16
    float largest[BLOCK];                     // score so far
    uint32_t mask[BLOCK];                     // slots of the page that the row sees
    int count;
};

// Where keys and values of one layer and head stand in a page, and how far behind them those of the next page.
struct Place {
    const uint8_t *keys, *values;
    ptrdiff_t next;  // prefetched while this page is read: a quarter faster where pages come from memory
    int D;           // padded
};

// Keys of 16 slots: dimensions 2 * pair and 2 * pair + 1
template <bool FP32>
INLINE void load_keys(const Place& at, int half, int pair, F& even, F& odd) {
    if constexpr (FP32) {
        const float* keys = (const float*)at.keys + 2 * pair * SLOTS + 16 * half;
        even = load(keys), odd = load(keys + SLOTS);
        prefetch((const uint8_t*)keys + at.next), prefetch((const uint8_t*)(keys + SLOTS) + at.next);
    } else {
        const uint8_t* keys = at.keys + (half * (at.D / 2) + pair) * 64;
        const B both = load_bytes(keys);
        even = first(both), odd = second(both);
        prefetch(keys + at.next);
    }
}

// Values of slots 2 * pair and 2 * pair + 1: dimensions d ... d + 15
template <bool FP32>
INLINE void load_values(const Place& at, int pair, int d, F& even, F& odd) {
    if constexpr (FP32) {
        const float* values = (const float*)at.values + 2 * pair * at.D + d;
        even = load(values), odd = load(values + at.D);
        prefetch((const uint8_t*)values + at.next), prefetch((const uint8_t*)(values + at.D) + at.next);
    } else {
        const uint8_t* values = at.values + (pair * at.D + d) * 4;
        const B both = load_bytes(values);
        even = first(both), odd = second(both);
        prefetch(values + at.next);
    }
}

// Scores of R rows, from row r, with the 16 * HALVES slots from half `begin`
template <bool FP32, int R>
INLINE void score(Rows& rows, int r, const Place& at, int begin) {
    const int D = at.D;
    const float* q = rows.q + r * D;
    F even[R][HALVES], odd[R][HALVES];
    for (int i = 0; i < R; i++)
        for (int h = 0; h < HALVES; h++) even[i][h] = odd[i][h] = zero();
    for (int pair = 0; pair < D / 2; pair++) {
#pragma GCC unroll 2
        for (int h = 0; h < HALVES; h++) {
            F a, b;
            load_keys<FP32>(at, begin + h, pair, a, b);
#pragma GCC unroll 4
            for (int i = 0; i < R; i++) {
                even[i][h] = fma(set(q[i * D + 2 * pair]), a, even[i][h]);
                odd[i][h] = fma(set(q[i * D + 2 * pair + 1]), b, odd[i][h]);
            }
        }
    }
    for (int i = 0; i < R; i++)
        for (int h = 0; h < HALVES; h++) store(rows.weights[r + i] + 16 * (begin + h), add(even[i][h], odd[i][h]));
}

// Adds weights times values to R rows, from row r, for 16 * C dimensions from d
template <bool FP32, int R, int C>
INLINE void mix(Rows& rows, int r, const Place& at, int d) {
    const int D = at.D;
    float* out = rows.out + r * D + d;
    F sums[R][C];
    for (int i = 0; i < R; i++)
        for (int c = 0; c < C; c++) sums[i][c] = load(out + i * D + 16 * c);
    for (int pair = 0; pair < SLOTS / 2; pair++) {
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            F a, b;
            load_values<FP32>(at, pair, d + 16 * c, a, b);
#pragma GCC unroll 4
            for (int i = 0; i < R; i++) {
                sums[i][c] = fma(set(rows.weights[r + i][2 * pair]), a, sums[i][c]);
                sums[i][c] = fma(set(rows.weights[r + i][2 * pair + 1]), b, sums[i][c]);
            }
        }
    }
    for (int i = 0; i < R; i++)
        for (int c = 0; c < C; c++) store(out + i * D + 16 * c, sums[i][c]);
}

// Turns the scores of a page into weights; where they hold a new largest score, earlier sums are scaled down to it.
INLINE void weigh(Rows& rows, int r, int D) {
    const uint32_t low = rows.mask[r] & 0xffff, high = rows.mask[r] >> 16;
    float* weights = rows.weights[r];
    const F a = load(weights), b = load(weights + 16), none = set(-INFINITY);
    const float largest = max_of(max(select(low, a, none), select(high, b, none)));
    if (largest > rows.largest[r]) {
        const F scale = exp(set(rows.largest[r] - largest));
        rows.largest[r] = largest;
        store(rows.sum[r], mul(load(rows.sum[r]), scale));
        float* out = rows.out + r * D;
        for (int d = 0; d < D; d += 16) store(out + d, mul(load(out + d), scale));
    }
    const F level = set(rows.largest[r]);
    const F wa = select(low, exp(sub(a, level)), zero()), wb = select(high, exp(sub(b, level)), zero());
    store(rows.sum[r], add(load(rows.sum[r]), add(wa, wb)));
    store(weights, wa), store(weights + 16, wb);
}

// One page for R rows, from row r
template <bool FP32, int R>
INLINE void attend_rows(Rows& rows, int r, const Place& at) {
    uint32_t any = 0;
    for (int i = 0; i < R; i++) any |= rows.mask[r + i];
    if (!any) return;
    for (int half = 0; half < 2; half += HALVES) score<FP32, R>(rows, r, at, half);
    for (int i = 0; i < R; i++) {
        if (rows.mask[r + i])
            weigh(rows, r + i, at.D);
        else
            memset(rows.weights[r + i], 0, sizeof rows.weights[0]);
    }
    int d = 0;
    for (; d + 16 * COLUMNS <= at.D; d += 16 * COLUMNS) mix<FP32, R, COLUMNS>(rows, r, at, d);
    for (; d < at.D; d += 32) mix<FP32, R, 2>(rows, r, at, d);
}

template <bool FP32>
void attend_page(Rows& rows, const Place& at) {
    int r = 0;
    for (; r + TOGETHER <= rows.count; r += TOGETHER) attend_rows<FP32, TOGETHER>(rows, r, at);
    if (TOGETHER == 4 && rows.count - r == 3)
        attend_rows<FP32, 3>(rows, r, at);
    else if (rows.count - r == 2)
        attend_rows<FP32, 2>(rows, r, at);
    else if (rows.count - r == 1)
        attend_rows<FP32, 1>(rows, r, at);
}

// Queries of the rows from `begin` on, with zeros up to the padded head size
void begin_rows(Rows& rows, const Attention& job, int begin, int D) {
    rows.count = job.n * job.G - begin < BLOCK ? job.n * job.G - begin : BLOCK;
    for (int r = 0; r < rows.count; r++) {
        const int token = (begin + r) / job.G, head = (begin + r) % job.G;
        memcpy(rows.q + r * D, job.q + token * job.q_stride + head * job.head, job.head * sizeof(float));
        memset(rows.q + r * D + job.head, 0, (D - job.head) * sizeof(float));
        rows.largest[r] = -INFINITY;
    }
    memset(rows.out, 0, rows.count * D * sizeof(float));
    memset(rows.sum, 0, sizeof rows.sum);
}

void finish_rows(const Rows& rows, const Attention& job, int begin, int D) {
    for (int r = 0; r < rows.count; r++) {
        const int token = (begin + r) / job.G, head = (begin + r) % job.G;
        float* out = job.out + token * job.out_stride + head * job.head;
        const F share = set(1.0f / sum_of(load(rows.sum[r])));
        int d = 0;
        for (; d + 16 <= job.head; d += 16) store(out + d, mul(load(rows.out + r * D + d), share));
        if (d == job.head) continue;
        alignas(64) float last[16];
        store(last, mul(load(rows.out + r * D + d), share));
        memcpy(out + d, last, (job.head - d) * sizeof(float));
    }
}

}  // namespace

void attend(const Attention& job) {
    Rows rows;
    const int D = padded(job.head, 32);
    for (int begin = 0; begin < job.n * job.G; begin += BLOCK) {
        begin_rows(rows, job, begin, D);
        const int last = job.position + (begin + rows.count - 1) / job.G;
        for (int s = 0; s < job.count && job.segments[s].first <= last; s++) {
            const Segment& segment = job.segments[s];
            uint32_t any = 0;
            for (int r = 0; r < rows.count; r++) {
                const int token = (begin + r) / job.G;
                rows.mask[r] = r && token == (begin + r - 1) / job.G
                                   ? rows.mask[r - 1]
                                   : visible(segment, job.position + token, job.window);
                any |= rows.mask[r];
            }
            if (!any) continue;
            const ptrdiff_t next = s + 1 < job.count ? job.segments[s + 1].page - segment.page : 0;
            const Place at{segment.page + job.keys, segment.page + job.values, next, D};
            if (job.fp32)
                attend_page<true>(rows, at);
            else
                attend_page<false>(rows, at);
        }
        finish_rows(rows, job, begin, D);
    }
}

void store_token(const float* k, const float* v, int D, int slot, uint8_t* keys, uint8_t* values, bool fp32) {
    if (fp32) {
        for (int d = 0; d < D; d++) ((float*)keys)[d * SLOTS + slot] = k[d];
        memcpy((float*)values + slot * padded(D, 32), v, D * sizeof(float));
        return;
    }
    const int width = padded(D, 32);
    uint16_t* key = (uint16_t*)keys + slot / 16 * (width * 16) + slot % 16 * 2;
    uint16_t* value = (uint16_t*)values + slot / 2 * (width * 2) + slot % 2;
    for (int d = 0; d < D; d++) {
        key[d / 2 * 32 + d % 2] = to_bf16(k[d]);
        value[d * 2] = to_bf16(v[d]);
    }
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
