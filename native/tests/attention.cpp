// Checks of the cache's pages and of attention over them.
#include <bit>
#include <memory>

#include "tests/checks.h"

namespace riyaz::checks {
namespace {

// Not a number, and its bits overflow where they are rounded to bfloat16 without a look at them
constexpr float FULL = std::bit_cast<float>(0x7fffe000u);

// Three pages with keys and values of one head: a full one, one that begins late, and one with gaps
struct Pages {
    static constexpr uint32_t MASKS[3] = {~0u, 0xffff0000u, 0x5a5a5a5au};
    int head, tokens = 0;
    Kv kv;
    size_t values_at, page_bytes;  // where values begin in a page, and its size
    std::vector<uint8_t> bytes;
    std::vector<Segment> segments;

    Pages(const Kernels& k, int head_size, Kv type, bool damaged = false)
        : head(head_size),
          kv(type),
          values_at(key_bytes(padded(head_size, 32), type)),
          page_bytes(values_at + value_bytes(padded(head_size, 32), type)),
          bytes(3 * page_bytes + 64) {
        Random random(1);
        uint8_t* start = bytes.data() + (64 - uintptr_t(bytes.data()) % 64);
        for (int p = 0; p < 3; p++) {
            uint8_t* page = start + page_bytes * p;
            segments.push_back({page, MASKS[p], tokens});
            for (int slot = 0; slot < SLOTS; slot++) {
                if (!(MASKS[p] >> slot & 1)) continue;
                Floats key = random.numbers(head), value = random.numbers(head);
                if (damaged && tokens == 40) key[head / 2] = NONE;
                if (damaged && tokens == 41) value[1] = FULL;
                k.store_token(key.data(), value.data(), head, slot, page, page + values_at, kv);
                tokens++;
            }
        }
    }
    Pages(const Pages&) = delete;
};

constexpr int G = 3;

Floats attend(void (*kernel)(const Attention&), const Pages& pages, const Floats& q, int n, int position, int window) {
    Floats out(q.size(), NONE);
    Attention job;
    job.q = q.data(), job.out = out.data(), job.q_stride = job.out_stride = size_t(G) * pages.head;
    job.n = n, job.G = G, job.head = pages.head, job.position = position, job.window = window;
    job.segments = pages.segments.data(), job.count = int(pages.segments.size());
    job.keys = 0, job.values = pages.values_at, job.kv = pages.kv;
    kernel(job);
    return out;
}

double store_check(const Sets& k) {
    double worst = 0;
    for (const Kv kv : {Kv::fp32, Kv::bf16, Kv::int8})
        for (const int head : {20, 64, 256}) {
            for (const bool damaged : {false, true}) {
                const Pages found(k.checked, head, kv, damaged), wanted(k.plain, head, kv, damaged);
                const size_t size = 3 * found.page_bytes;
                worst = std::max(worst, must(memcmp(found.segments[0].page, wanted.segments[0].page, size) == 0));
            }
        }
    return worst;
}

// Values are at most 1; the weights' errors come from those of the scores, sums of `head` terms of at most `large`.
double attention_error(const Sets& k, Kv kv, bool tiles) {
    double worst = 0;
    const auto kernel = tiles ? k.checked.attend_tiles : k.checked.attend;
    int place = 0;  // of a head size and a number of tokens
    for (const int head : {20, 32, 64, 80, 128, 256}) {
        const Pages pages(k.plain, head, kv), damaged(k.plain, head, kv, true);
        const float large = 1 / std::sqrt(float(head));
        for (const int n : {1, 2, 7, 19, 40}) {
            place++;
            for (const int window : {0, 5, 33}) {
                if (left_out(place + (window + 1) / 6, 3)) continue;  // 0, 1 and 5: three places
                const int position = pages.tokens - n;
                const float sharp = n == 19 ? 30 : 1;  // so that later pages hold much larger scores than earlier ones
                const Floats q = Random(uint32_t(n)).numbers(size_t(n) * G * head, sharp * large);
                const Floats wanted = attend(k.plain.attend, pages, q, n, position, window);
                const double size = 1 + sharp * head * large / 2;
                const Sizes allowed(q.size(), (tiles ? BF16 : NEAR) * size);
                const Floats together = attend(kernel, pages, q, n, position, window);
                worst = std::max(worst, errors(together, wanted, allowed));
                for (int i = 0; i < n && !tiles; i++) {  // bit for bit what one token alone gets
                    const auto begin = size_t(i) * G * head, end = begin + size_t(G) * head;
                    const Floats own(q.begin() + begin, q.begin() + end);
                    worst = std::max(worst, same(attend(kernel, pages, own, 1, position + i, window),
                                                 Floats(together.begin() + begin, together.begin() + end)));
                }
                if (window || position < 41) continue;  // all tokens see the damaged ones
                for (const float x : attend(kernel, damaged, q, n, position, 0))
                    worst = std::max(worst, must(std::isnan(x)));
                Floats none = q;
                none[0] = NONE;
                const Floats found = attend(kernel, pages, none, n, position, 0);
                for (int i = 0; i < int(q.size()); i++)
                    worst =
                        std::max(worst, i < head ? must(std::isnan(found[i])) : error(found[i], wanted[i], allowed[i]));
            }
        }
    }
    return worst;
}

double attention_fp32(const Sets& k) { return attention_error(k, Kv::fp32, false); }
double attention_bf16(const Sets& k) { return attention_error(k, Kv::bf16, false); }
double attention_int8(const Sets& k) { return attention_error(k, Kv::int8, false); }
double attention_tiles(const Sets& k) { return attention_error(k, Kv::bf16, true); }

// Codes of 8 bits beside floats, with values and scores of at most about 1
double attention_rounded(const Sets& k) {
    double worst = 0;
    for (const int head : {32, 64, 128, 256}) {
        const Pages coded(k.checked, head, Kv::int8), whole(k.plain, head, Kv::fp32);
        const float large = 1 / std::sqrt(float(head));
        const Floats q = Random(3).numbers(size_t(G) * head, large);
        const Floats found = attend(k.checked.attend, coded, q, 1, whole.tokens - 1, 0);
        const Floats wanted = attend(k.plain.attend, whole, q, 1, whole.tokens - 1, 0);
        worst = std::max(worst, errors(found, wanted, Sizes(q.size(), CODED)));
    }
    return worst;
}

}  // namespace

const std::vector<Check> attentions = {
    {"store", store_check},
    {"attention fp32", attention_fp32},
    {"attention bf16", attention_bf16},
    {"attention int8", attention_int8},
    {"attention rounded", attention_rounded},
    {"attention_tiles", attention_tiles, ManyTokens::tiles},
};

}  // namespace riyaz::checks
