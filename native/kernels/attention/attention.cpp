// Attention in float32, with keys and values read from the cache as float32, bfloat16 or codes of 8 bits.
//
// A row is one query head of one token. Rows go through the pages in blocks: in each page first the scores of all rows,
// then their weights, then their sums of values, a few rows at a time, so that what is loaded serves several. Where
// there are more rows than that, keys and values that are no floats become floats once for all. Each row has its own
// level, sums and order of additions, whatever the others do: what it does not see adds zeros, or is left out.
#include "kernels/attention/attention.h"

namespace riyaz {
namespace RIYAZ_ISA {

namespace {

constexpr int BLOCK = 96;            // most rows that go through the pages together
constexpr int ROOM = 32 * MAX_HEAD;  // and most of their numbers

// Registers hold the sums of `TOGETHER` rows times `HALVES` halves of a page (twice), or times `COLUMNS` vectors of
// dimensions. An F takes one of 32 registers with AVX-512, two of 16 with AVX2, four of 32 with NEON.
#if defined(__AVX512F__)
constexpr int TOGETHER = 4, HALVES = 2, COLUMNS = 4;
#else
constexpr int TOGETHER = 2, HALVES = 1, COLUMNS = 2;
#endif

// A row's weights are exp(score - level). The level is the largest score of the first page that the row sees, and rises
// to that of a later page only where this is more than `SLACK` above it: weights are e^8 at most.
constexpr float SLACK = 8;

// Rows of a block with such a padded head size
INLINE int block_of(int D) { return ROOM / D < BLOCK ? ROOM / D : BLOCK; }

struct Rows {
    alignas(64) float q[ROOM];                   // [row][D]
    alignas(64) float out[ROOM];                 // [row][D]: sums of weights times values
    alignas(64) float floats[SLOTS * MAX_HEAD];  // keys, then values, made of those of a page
    alignas(64) float weights[BLOCK][SLOTS];     // scores of a page, then exp(score - level)
    alignas(64) float sum[BLOCK][16];            // sums of weights, by slot modulo 16
    float level[BLOCK];
    uint32_t mask[BLOCK];  // slots of the page that the row sees
    int count;
};

// Keys and values of a page: as the cache has them, or floats made of its bfloat16 or codes
enum class Form { bf16, int8, fp32, ready };

// Where keys and values of one layer and head stand in a page, and how far behind them those of the next page.
struct Place {
    const uint8_t *keys, *values;
    ptrdiff_t next;  // prefetched while this page is read: a quarter faster where pages come from memory
    int D;           // padded
};

// Keys of 16 slots: dimensions 2 * pair and 2 * pair + 1
template <Form FORM>
INLINE void load_keys(const Place& at, int half, int pair, F& even, F& odd) {
    if constexpr (FORM == Form::int8) {
        const int8_t* keys = (const int8_t*)at.keys + (half * at.D + 2 * pair) * 16;
        const F scale = load((const float*)(at.keys + key_codes(at.D)) + 2 * pair / GROUP * SLOTS + 16 * half);
        even = mul(load_i8(keys), scale), odd = mul(load_i8(keys + 16), scale);
        if (pair % 2) prefetch((const uint8_t*)keys + at.next);
        return;
    }
    if constexpr (FORM == Form::bf16) {
        const uint8_t* keys = at.keys + (half * (at.D / 2) + pair) * 64;
        const B both = load_bytes(keys);
        even = first(both), odd = second(both);
        prefetch(keys + at.next);
        return;
    }
    const float* keys = (const float*)at.keys + 2 * pair * SLOTS + 16 * half;
    even = load(keys), odd = load(keys + SLOTS);
    if (FORM == Form::ready) return;
    prefetch((const uint8_t*)keys + at.next), prefetch((const uint8_t*)(keys + SLOTS) + at.next);
}

// Values of slots 2 * pair and 2 * pair + 1: dimensions d ... d + 15
template <Form FORM>
INLINE void load_values(const Place& at, int pair, int d, F& even, F& odd) {
    if constexpr (FORM == Form::int8) {
        const int8_t* values = (const int8_t*)at.values + 2 * pair * at.D + d;
        const float* scales = (const float*)(at.values + key_codes(at.D)) + 2 * pair;
        even = mul(load_i8(values), set(scales[0])), odd = mul(load_i8(values + at.D), set(scales[1]));
        if (d % 64 == 0)
            prefetch((const uint8_t*)values + at.next), prefetch((const uint8_t*)(values + at.D) + at.next);
        return;
    }
    if constexpr (FORM == Form::bf16) {
        const uint8_t* values = at.values + (pair * at.D + d) * 4;
        const B both = load_bytes(values);
        even = first(both), odd = second(both);
        prefetch(values + at.next);
        return;
    }
    const float* values = (const float*)at.values + 2 * pair * at.D + d;
    even = load(values), odd = load(values + at.D);
    if (FORM == Form::ready) return;
    prefetch((const uint8_t*)values + at.next), prefetch((const uint8_t*)(values + at.D) + at.next);
}

// The keys, or values, of a page as floats, in the layout of a cache in float32
template <Form FORM>
void keys_to_floats(const Place& at, float* out) {
    for (int half = 0; half < 2; half++)
        for (int pair = 0; pair < at.D / 2; pair++) {
            F even, odd;
            load_keys<FORM>(at, half, pair, even, odd);
            float* keys = out + 2 * pair * SLOTS + 16 * half;
            store(keys, even), store(keys + SLOTS, odd);
        }
}
template <Form FORM>
void values_to_floats(const Place& at, float* out) {
    for (int pair = 0; pair < SLOTS / 2; pair++)
        for (int d = 0; d < at.D; d += 16) {
            F even, odd;
            load_values<FORM>(at, pair, d, even, odd);
            float* values = out + 2 * pair * at.D + d;
            store(values, even), store(values + at.D, odd);
        }
}

// Scores of R rows, from row r, with the 16 * H slots from half `begin`
template <Form FORM, int R, int H>
INLINE void score(Rows& rows, int r, const Place& at, int begin) {
    const int D = at.D;
    const float* q = rows.q + r * D;
    F even[R][H], odd[R][H];
    for (int i = 0; i < R; i++)
        for (int h = 0; h < H; h++) even[i][h] = odd[i][h] = zero();
    for (int pair = 0; pair < D / 2; pair++) {
        F a[H], b[H];
#pragma GCC unroll 2
        for (int h = 0; h < H; h++) load_keys<FORM>(at, begin + h, pair, a[h], b[h]);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            const F first = set(q[i * D + 2 * pair]), second = set(q[i * D + 2 * pair + 1]);
#pragma GCC unroll 2
            for (int h = 0; h < H; h++) {
                even[i][h] = fma(first, a[h], even[i][h]);
                odd[i][h] = fma(second, b[h], odd[i][h]);
            }
        }
    }
    for (int i = 0; i < R; i++)
        for (int h = 0; h < H; h++) store(rows.weights[r + i] + 16 * (begin + h), add(even[i][h], odd[i][h]));
}

// Adds weights times values, of slot pairs [begin, end), to R rows, from row r, for 16 * C dimensions from d
template <Form FORM, int R, int C>
INLINE void mix(Rows& rows, int r, const Place& at, int d, int begin, int end) {
    const int D = at.D;
    float* out = rows.out + r * D + d;
    F sums[R][C];
    for (int i = 0; i < R; i++)
        for (int c = 0; c < C; c++) sums[i][c] = load(out + i * D + 16 * c);
    for (int pair = begin; pair < end; pair++) {
        F even[C], odd[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) load_values<FORM>(at, pair, d + 16 * c, even[c], odd[c]);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            const F weight = set(rows.weights[r + i][2 * pair]);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) sums[i][c] = fma(weight, even[c], sums[i][c]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
            const F weight = set(rows.weights[r + i][2 * pair + 1]);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) sums[i][c] = fma(weight, odd[c], sums[i][c]);
        }
    }
    for (int i = 0; i < R; i++)
        for (int c = 0; c < C; c++) store(out + i * D + 16 * c, sums[i][c]);
}

// Lifts the level of a row to `largest`: earlier sums are scaled down to it.
void lift(Rows& rows, int r, int D, float largest) {
    if (!(largest > rows.level[r])) return;
    const F scale = exp(set(rows.level[r] - largest));
    rows.level[r] = largest;
    store(rows.sum[r], mul(load(rows.sum[r]), scale));
    float* out = rows.out + r * D;
    for (int d = 0; d < D; d += 16) store(out + d, mul(load(out + d), scale));
}

// Turns the scores of a page into weights
INLINE void weigh(Rows& rows, int r, int D) {
    const uint32_t low = rows.mask[r] & 0xffff, high = rows.mask[r] >> 16;
    float* weights = rows.weights[r];
    const F a = load(weights), b = load(weights + 16), none = set(-INFINITY);
    const F larger = max(select(low, a, none), select(high, b, none));
    if (any_below(set(rows.level[r] + SLACK), larger)) lift(rows, r, D, max_of(larger));
    const F level = set(rows.level[r]);
    const F wa = select(low, exp(sub(a, level)), zero()), wb = select(high, exp(sub(b, level)), zero());
    store(rows.sum[r], add(load(rows.sum[r]), add(wa, wb)));
    store(weights, wa), store(weights + 16, wb);
}

// The slots of a page that some of R rows see
template <int R>
INLINE uint32_t seen(const Rows& rows, int r) {
    uint32_t any = 0;
    for (int i = 0; i < R; i++) any |= rows.mask[r + i];
    return any;
}

template <Form FORM, int R>
INLINE void score_rows(Rows& rows, int r, const Place& at) {
    const uint32_t any = seen<R>(rows, r);
    const bool low = any & 0xffff, high = any >> 16;
    if (HALVES == 2 && low && high) return score<FORM, R, HALVES>(rows, r, at, 0);
    if (low) score<FORM, R, 1>(rows, r, at, 0);
    if (high) score<FORM, R, 1>(rows, r, at, 1);
}

template <Form FORM, int R>
INLINE void mix_rows(Rows& rows, int r, const Place& at) {
    const uint32_t any = seen<R>(rows, r);
    if (!any) return;
    const int begin = __builtin_ctz(any) / 2, end = (33 - __builtin_clz(any)) / 2;
    int d = 0;
    for (; d + 16 * COLUMNS <= at.D; d += 16 * COLUMNS) mix<FORM, R, COLUMNS>(rows, r, at, d, begin, end);
    for (; d < at.D; d += 32) mix<FORM, R, 2>(rows, r, at, d, begin, end);
}

template <Form FORM>
void score_page(Rows& rows, const Place& at) {
    int r = 0;
    for (; r + TOGETHER <= rows.count; r += TOGETHER) score_rows<FORM, TOGETHER>(rows, r, at);
    const int left = rows.count - r;
    if (TOGETHER == 4 && left == 3)
        score_rows<FORM, 3>(rows, r, at);
    else if (left == 2)
        score_rows<FORM, 2>(rows, r, at);
    else if (left == 1)
        score_rows<FORM, 1>(rows, r, at);
}

template <Form FORM>
void mix_page(Rows& rows, const Place& at) {
    int r = 0;
    for (; r + TOGETHER <= rows.count; r += TOGETHER) mix_rows<FORM, TOGETHER>(rows, r, at);
    const int left = rows.count - r;
    if (TOGETHER == 4 && left == 3)
        mix_rows<FORM, 3>(rows, r, at);
    else if (left == 2)
        mix_rows<FORM, 2>(rows, r, at);
    else if (left == 1)
        mix_rows<FORM, 1>(rows, r, at);
}

void weigh_page(Rows& rows, int D) {
    for (int r = 0; r < rows.count; r++) {
        if (rows.mask[r])
            weigh(rows, r, D);
        else
            memset(rows.weights[r], 0, sizeof rows.weights[0]);
    }
}

template <Form FORM>
void attend_page(Rows& rows, const Place& at) {
    if (FORM == Form::fp32 || rows.count <= TOGETHER) {
        score_page<FORM>(rows, at);
        weigh_page(rows, at.D);
        mix_page<FORM>(rows, at);
    } else {
        const Place floats{(const uint8_t*)rows.floats, (const uint8_t*)rows.floats, 0, at.D};
        keys_to_floats<FORM>(at, rows.floats);
        score_page<Form::ready>(rows, floats);
        weigh_page(rows, at.D);
        values_to_floats<FORM>(at, rows.floats);
        mix_page<Form::ready>(rows, floats);
    }
}

// Queries of the rows from `begin` on, with zeros up to the padded head size
void begin_rows(Rows& rows, const Attention& job, int begin, int D) {
    const int left = job.n * job.G - begin, most = block_of(D);
    rows.count = left < most ? left : most;
    for (int r = 0; r < rows.count; r++) {
        const int token = (begin + r) / job.G, head = (begin + r) % job.G;
        memcpy(rows.q + r * D, job.q + token * job.q_stride + head * job.head, job.head * sizeof(float));
        memset(rows.q + r * D + job.head, 0, (D - job.head) * sizeof(float));
        rows.level[r] = -INFINITY;
    }
    memset(rows.out, 0, rows.count * D * sizeof(float));
    memset(rows.sum, 0, rows.count * sizeof rows.sum[0]);
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

// x[D] in bfloat16, with a zero after an odd number of them
INLINE void round_all(const float* x, int D, uint16_t* out) {
    F size = zero();
    int d = 0;
    for (; d + 16 <= D; d += 16) {
        const F v = load(x + d);
        store_bf16(out + d, v), size = larger(size, v);
    }
    if (!(size_of(size, size) <= 3.4028234e38f)) d = 0;  // store_bf16 may make zero of a NaN
    for (; d < D; d++) out[d] = to_bf16(x[d]);
    out[D] = 0;
}

}  // namespace

void attend(const Attention& job) {
    const auto page = job.kv == Kv::fp32   ? attend_page<Form::fp32>
                      : job.kv == Kv::bf16 ? attend_page<Form::bf16>
                                           : attend_page<Form::int8>;
    Rows rows;
    const int D = padded(job.head, 32);
    for (int begin = 0; begin < job.n * job.G; begin += block_of(D)) {
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
            page(rows, at);
        }
        finish_rows(rows, job, begin, D);
    }
}

namespace {
// x[n] as codes -127 ... 127; returns their scale, NaN where a number is not finite.
float encode(const float* x, int n, int8_t* codes) {
    float largest = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        const float size = __builtin_fabsf(x[i]);
        largest = size > largest ? size : largest, finite &= size < INFINITY;
    }
    if (!finite || largest < 1e-30f) {
        memset(codes, 0, n);
        return finite ? 0 : NAN;
    }
    const float inverse = 127 / largest;
    for (int i = 0; i < n; i++) codes[i] = int8_t(int32_t(__builtin_rintf(x[i] * inverse)));
    return largest / 127;
}

void store_codes(const float* k, const float* v, int D, int slot, uint8_t* keys, uint8_t* values) {
    const int width = padded(D, GROUP);
    float* scales = (float*)(keys + key_codes(width)) + slot;
    keys += slot / 16 * width * 16 + slot % 16;
    for (int d = 0; d < D; d += GROUP) {
        const int n = D - d < GROUP ? D - d : GROUP;
        int8_t codes[GROUP];
        scales[d] = encode(k + d, n, codes);
        for (int i = 0; i < n; i++) keys[(d + i) * 16] = uint8_t(codes[i]);
    }
    ((float*)(values + key_codes(width)))[slot] = encode(v, D, (int8_t*)values + slot * width);
}

}  // namespace

void store_token(const float* k, const float* v, int D, int slot, uint8_t* keys, uint8_t* values, Kv kv) {
    if (kv == Kv::int8) return store_codes(k, v, D, slot, keys, values);
    if (kv == Kv::fp32) {
        for (int d = 0; d < D; d++) ((float*)keys)[d * SLOTS + slot] = k[d];
        memcpy((float*)values + slot * padded(D, 32), v, D * sizeof(float));
        return;
    }
    const int width = padded(D, 32);
    uint16_t* key = (uint16_t*)keys + slot / 16 * (width * 16) + slot % 16 * 2;
    uint16_t* value = (uint16_t*)values + slot / 2 * (width * 2) + slot % 2;
    uint16_t own[MAX_HEAD + 1];
    round_all(k, D, own);
    for (int d = 0; d < D; d += 2) memcpy(key + d * 16, own + d, 4);
    round_all(v, D, own);
    for (int d = 0; d < D; d++) value[d * 2] = own[d];
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
