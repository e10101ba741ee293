// The cache of keys and values, by a sequence of calls that an input says, beside a plain list of each sequence's
// tokens: every slot must hold the token that was written to it, whatever is forked, cut, closed and rolled back.
#include "engine/cache.h"

#include <algorithm>
#include <map>

#include "fuzz/bytes.h"

namespace riyaz::fuzz {
namespace {

constexpr int HEAD = 32;
constexpr size_t PAGE = 8192;  // bytes: one layer, one head, float32
constexpr int SEQUENCES = 24;  // at once, at most

struct Known {
    std::vector<uint32_t> tokens;  // a fork's too, as soon as it has them
    int parent = 0, shared = 0;    // it has to take the first `shared` tokens of `parent` before its first own
};

class Calls {
  public:
    explicit Calls(Bytes& in) : in_(in), cache_(1, 1, HEAD, Kv::fp32, in.whole(1, 40) * PAGE) {}

    void run() {
        while (!in_.empty()) {
            try {
                one();
            } catch (const std::logic_error&) {  // what the cache refuses
            }
        }
        for (const auto& [id, known] : known_) expect_tokens(id, known);
        while (!known_.empty()) close(known_.begin()->first);
        must(cache_.bytes() == 0 && cache_.sequences() == 0, "pages are left when all sequences are closed");
    }

  private:
    void one() {
        const int call = in_.whole(0, 15), id = chosen();
        if (call == 0 && known_.size() < SEQUENCES) known_[cache_.open()] = {};
        if (call <= 2 && call > 0) begin(id, call == 1);
        if (call == 3) close(id);
        if (call == 4) truncate(id);
        if (call >= 5) append();
    }

    // Any sequence, also one that is none
    int chosen() {
        const int place = in_.byte();
        if (known_.empty() || place == 255) return place;
        return std::next(known_.begin(), place % known_.size())->first;
    }

    void begin(int id, bool fork) {
        if (known_.size() >= SEQUENCES) return;
        const int length = in_.whole(-2, 80);
        const int fresh = fork ? cache_.fork(id, length) : cache_.open_after(id, length);
        must(length >= 0, "a beginning of less than no tokens");
        Known own;
        const Known* from = &known_.at(id);
        while (from->parent && length <= from->shared) id = from->parent, from = &known_.at(id);
        if (!from->parent && length <= int(from->tokens.size()))
            own.tokens.assign(from->tokens.begin(), from->tokens.begin() + length);
        else
            own.parent = id, own.shared = length;
        known_[fresh] = own;
    }

    void close(int id) {
        cache_.close(id);
        known_.erase(id);
    }

    void truncate(int id) {
        const int length = in_.whole(-1, 80);
        cache_.truncate(id, length);
        known_.at(id).tokens.resize(length);
    }

    // Appends to some sequences, writes their tokens, and keeps them or takes all of it back.
    void append() {
        std::map<int, int> wanted;
        const int count = in_.whole(1, 3);
        for (int i = 0; i < count; i++) wanted[chosen()] = in_.whole(0, 70);
        const auto before = known_;
        const bool keeps = in_.byte() % 4 != 0;
        try {
            cache_.expect({wanted.begin(), wanted.end()});
            for (const auto& [id, n] : wanted) append_to(id, n);
        } catch (const std::exception&) {
            cache_.rollback();
            known_ = before;
            return;
        }
        if (keeps) return cache_.commit();
        cache_.rollback();
        known_ = before;
    }

    void append_to(int id, int n) {
        std::vector<Cache::Slot> slots;
        cache_.append(id, n, slots);
        Known& own = known_.at(id);
        if (own.parent) {
            const auto& from = known_.at(own.parent).tokens;
            must(own.shared <= int(from.size()), "a fork that has more tokens than its parent");
            own = {{from.begin(), from.begin() + own.shared}};
        }
        must(int(slots.size()) == n, "as many slots as tokens");
        must(cache_.bytes() <= cache_.limit(), "no more bytes than the limit");
        for (const Cache::Slot& slot : slots) {
            own.tokens.push_back(++last_token_);
            memcpy(slot.page + cache_.keys(0, 0) + slot.slot * 4, &last_token_, 4);
            memset(slot.page + cache_.values(0, 0) + slot.slot * HEAD * 4, 1, HEAD * 4);
        }
    }

    void expect_tokens(int id, const Known& known) {
        const int length = known.parent ? known.shared : int(known.tokens.size());
        must(cache_.length(id) == length, "the length of a sequence");
        if (known.parent) return;
        std::vector<Segment> segments;
        cache_.segments(id, segments);
        size_t at = 0;
        for (const Segment& segment : segments) {
            must(segment.mask != 0 && segment.first == int(at), "the first token of a page");
            for (int slot = 0; slot < SLOTS; slot++) {
                if (!(segment.mask >> slot & 1)) continue;
                uint32_t held;
                memcpy(&held, segment.page + cache_.keys(0, 0) + slot * 4, 4);
                must(at < known.tokens.size() && held == known.tokens[at++], "a token in its slot");
            }
        }
        must(at == known.tokens.size(), "all tokens of a sequence");
    }

    Bytes& in_;
    Cache cache_;
    std::map<int, Known> known_;
    uint32_t last_token_ = 0;
};

}  // namespace
}  // namespace riyaz::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    riyaz::fuzz::Bytes in(data, size);
    riyaz::fuzz::Calls(in).run();
    return 0;
}
