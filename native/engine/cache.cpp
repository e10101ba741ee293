#include "engine/cache.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/memory.h"

namespace riyaz {

namespace {

constexpr size_t SLAB_BYTES = GUARDED ? 1 : size_t(16) << 20;

int count(uint32_t mask) { return std::popcount(mask); }

// The lowest n bits that are set
uint32_t lowest(uint32_t mask, int n) {
    while (count(mask) > n) mask &= ~std::bit_floor(mask);
    return mask;
}

std::string megabytes(size_t bytes) {
    const size_t tenths = (bytes + 99'999) / 100'000;
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " MB";
}

}  // namespace

// Memory for some pages. The system gives it zeroed, and only as it is touched.
struct Cache::Slab {
    Slab(size_t page_bytes, int count, [[maybe_unused]] bool huge) : bytes(page_bytes * count), pages(count) {
        void* mapped = zeroed_pages(bytes);
        memory = static_cast<uint8_t*>(mapped);
#if defined(__linux__)
        if (huge && !GUARDED) madvise(mapped, bytes, MADV_HUGEPAGE);  // where the system refuses, its pages stay small
#endif
        for (int i = 0; i < count; i++) pages[i].data = memory + i * page_bytes, pages[i].slab = this;
    }
    ~Slab() { give_back_pages(memory, bytes); }
    Slab(const Slab&) = delete;
    Slab& operator=(const Slab&) = delete;

    int in_use() const { return fresh - int(free.size()); }

    size_t bytes;
    uint8_t* memory;
    std::vector<Page> pages;
    std::vector<Page*> free;  // were in use before
    int fresh = 0;            // pages from this one on were never in use
};

Cache::Cache(int layers, int kv_heads, int head, Kv kv, size_t limit)
    : layers_(layers),
      kv_heads_(kv_heads),
      padded_head_(padded(head, 32)),
      kv_(kv),
      part_bytes_(key_bytes(padded_head_, kv) + value_bytes(padded_head_, kv)),
      page_bytes_(part_bytes_ * layers * kv_heads),
      limit_(limit) {}

Cache::~Cache() = default;

int Cache::open() { return keep({}); }

int Cache::open_after(int id, int length) {
    Sequence sequence;
    begin(id, length, sequence);
    sequence.head.sealed = true;
    return keep(std::move(sequence));
}

int Cache::fork(int id, int length) {
    Sequence sequence;
    const Sequence& from = begin(id, length, sequence);
    sequence.family = from.family;
    sequence.head.forked = true;
    sequence.head.sealed = !sequence.head.parent && from.head.sealed && length == from.length;
    return keep(std::move(sequence));
}

// The first `length` tokens of a sequence for an empty one, or where that is to take them from. Returns the sequence
// that has them.
const Cache::Sequence& Cache::begin(int id, int length, Sequence& sequence) {
    assert(changes_.empty());
    if (length < 0) throw std::logic_error("no such tokens");
    while (find(id).head.parent && length <= find(id).head.shared) id = find(id).head.parent;
    const Sequence& from = find(id);
    if (!from.head.parent && length <= from.length)
        share(from, length, sequence);
    else
        sequence.head.parent = id, sequence.head.shared = length;
    return from;
}

void Cache::close(int id) {
    assert(changes_.empty());
    for (const PagePart& part : find(id).parts) drop(part);
    sequences_.erase(id);
}

void Cache::truncate(int id, int length) {
    assert(changes_.empty());
    Sequence& sequence = find(id);
    if (sequence.head.parent || length < 0 || length > sequence.length) throw std::logic_error("no such tokens");
    int begin = sequence.length;
    for (size_t p = sequence.parts.size(); p-- > 0 && begin > length;) {
        if (sequence.parts[p].page->parts > 1) throw std::logic_error("tokens that other sequences have");
        begin -= count(sequence.parts[p].mask);
    }
    while (sequence.length > length) {
        PagePart& part = sequence.parts.back();
        const int all = count(part.mask), kept = std::max(0, all - (sequence.length - length));
        part.mask = lowest(part.mask, kept), sequence.length -= all - kept;
        if (kept) continue;
        drop(part);
        sequence.parts.pop_back();
    }
}

int Cache::length(int id) const {
    const Sequence& sequence = find(id);
    return sequence.head.parent ? sequence.head.shared : sequence.length;
}

void Cache::expect(const std::vector<std::pair<int, int>>& appends) const {
    size_t needed = bytes();
    for (const auto& [id, n] : appends) {
        const Sequence& sequence = find(id);
        if (sequence.head.forked) continue;
        const bool open = !sequence.parts.empty() && !sequence.head.sealed;
        needed += bytes_of(n - std::min(n, open ? room(sequence.parts.back()) : 0));
    }
    refuse_above_limit(needed);
}

void Cache::append(int id, int n, std::vector<Slot>& slots) {
    Sequence& sequence = find(id);
    const Head before = sequence.head;
    Sequence shared;
    if (before.parent) {
        const Sequence& parent = find(before.parent);
        if (parent.head.parent || parent.length < before.shared) throw std::logic_error("a fork before its parent");
        share(parent, before.shared, shared);
    }
    const std::vector<PagePart>& parts = before.parent ? shared.parts : sequence.parts;

    Page* last = parts.empty() || before.sealed ? nullptr : parts.back().page;
    if (last) last->used = SLOTS - room(parts.back());
    const int here = last ? std::min(n, SLOTS - last->used) : 0, left = n - here;
    const auto found = before.forked ? common_.find(sequence.family) : common_.end();
    Page* common = found == common_.end() || found->second == last ? nullptr : found->second;
    if (common && (!left || left > SLOTS - common->used)) common = nullptr;
    try {
        refuse_above_limit(bytes() + (common ? 0 : bytes_of(left)));
    } catch (...) {
        for (const PagePart& part : shared.parts) drop(part);
        throw;
    }

    if (before.parent) sequence.parts = std::move(shared.parts), sequence.length = shared.length;
    sequence.head = {};
    changes_.push_back({id, before, 0});
    if (here) take(sequence, last, here, slots);
    if (common) take(sequence, common, left, slots);
    for (int rest = common ? 0 : left; rest > 0; rest -= SLOTS) {
        Page* page = new_page(sequence.family);
        if (before.forked) common_[sequence.family] = page;
        take(sequence, page, std::min(rest, SLOTS), slots);
    }
}

void Cache::commit() { changes_.clear(); }

void Cache::rollback() {
    for (; !changes_.empty(); changes_.pop_back()) {  // the latest first: slots of a page are given back in order
        const Change& change = changes_.back();
        Sequence& sequence = find(change.sequence);
        cut(sequence, change.appended);
        sequence.head = change.before;
        if (!change.before.parent) continue;
        for (const PagePart& part : sequence.parts) drop(part);
        sequence.parts.clear(), sequence.length = 0;
    }
}

void Cache::segments(int id, std::vector<Segment>& segments) const {
    int first = 0;
    for (const PagePart& part : find(id).parts) {
        segments.push_back({part.page->data, part.mask, first});
        first += count(part.mask);
    }
}

size_t Cache::reserved() const {
    size_t bytes = 0;
    for (const auto& slab : slabs_) bytes += slab->bytes;
    return bytes;
}

const Cache::Sequence& Cache::find(int id) const {
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) throw std::logic_error("no sequence " + std::to_string(id));
    return found->second;
}

Cache::Sequence& Cache::find(int id) { return const_cast<Sequence&>(std::as_const(*this).find(id)); }

int Cache::keep(Sequence&& sequence) {
    const int id = ++last_id_;
    if (!sequence.family) sequence.family = id;
    sequences_.emplace(id, std::move(sequence));
    return id;
}

// The first `length` tokens of one sequence for an empty one
void Cache::share(const Sequence& from, int length, Sequence& to) {
    for (const PagePart& part : from.parts) {
        if (to.length == length) break;
        const uint32_t mask = lowest(part.mask, length - to.length);
        to.parts.push_back({part.page, mask});
        to.length += count(mask);
        part.page->parts++;
    }
}

// Slots of a sequence's last page that are free for it; those of others that are gone are free again.
int Cache::room(const PagePart& last) {
    return SLOTS - (last.page->parts == 1 ? int(std::bit_width(last.mask)) : last.page->used);
}

void Cache::refuse_above_limit(size_t bytes) const {
    if (bytes <= limit_) return;
    throw CacheFull("keys and values need " + megabytes(bytes) + ", the limit is " + megabytes(limit_));
}

// Gives the next n slots of a page to a sequence, in the latest change.
void Cache::take(Sequence& sequence, Page* page, int n, std::vector<Slot>& slots) {
    if (sequence.parts.empty() || sequence.parts.back().page != page) {
        sequence.parts.push_back({page, 0});
        page->parts++;
    }
    for (int i = 0; i < n; i++, page->used++) {
        sequence.parts.back().mask |= 1u << page->used;
        slots.push_back({page->data, page->used});
    }
    sequence.length += n;
    changes_.back().appended += n;
}

// Takes back the last n slots of a sequence, which no other has.
void Cache::cut(Sequence& sequence, int n) {
    for (sequence.length -= n; n > 0; n--) {
        PagePart& part = sequence.parts.back();
        part.page->used--;
        assert(part.page->used == int(std::bit_width(part.mask)) - 1);
        clear(*part.page, part.page->used);
        part.mask &= ~(1u << part.page->used);
        if (part.mask) continue;
        drop(part);
        sequence.parts.pop_back();
    }
}

void Cache::drop(PagePart part) {
    if (--part.page->parts == 0) free_page(part.page);
}

Cache::Page* Cache::new_page(int family) {
    const auto with = [&](auto&& has) { return std::find_if(slabs_.begin(), slabs_.end(), has); };
    auto slab = with([](const auto& slab) { return !slab->free.empty(); });
    Page* page;
    if (slab != slabs_.end()) {
        page = (*slab)->free.back();
        (*slab)->free.pop_back();
        std::memset(page->data, 0, page_bytes_);
    } else {
        slab = with([](const auto& slab) { return slab->fresh < int(slab->pages.size()); });
        if (slab == slabs_.end()) {
            const int pages = int(std::max<size_t>(1, SLAB_BYTES / page_bytes_));
            // The first slab's pages stay small: short texts take no more memory than they need. Long texts are read a
            // tenth faster from huge pages: a head's share of a page has 8 KB, and the next one lies far from it.
            slabs_.push_back(std::make_unique<Slab>(page_bytes_, pages, !slabs_.empty()));
            slab = slabs_.end() - 1;
        }
        page = &(*slab)->pages[(*slab)->fresh++];
    }
    page->family = family, page->used = 0;
    pages_++;
    return page;
}

void Cache::free_page(Page* page) {
    const auto common = common_.find(page->family);
    if (common != common_.end() && common->second == page) common_.erase(common);
    Slab* slab = page->slab;
    slab->free.push_back(page);
    pages_--;
    const auto empty = [](const auto& slab) { return slab->in_use() == 0; };
    if (empty(slab) && std::count_if(slabs_.begin(), slabs_.end(), empty) > 1)
        std::erase_if(slabs_, [&](const auto& other) { return other.get() == slab; });
}

void Cache::clear(const Page& page, int slot) const {
    const int D = padded_head_;
    for (int layer = 0; layer < layers_; layer++) {
        for (int head = 0; head < kv_heads_; head++) {
            uint8_t *keys = page.data + this->keys(layer, head), *values = page.data + this->values(layer, head);
            if (kv_ == Kv::int8) {
                float* scales = (float*)(keys + key_codes(D));
                for (int group = 0; group < D / GROUP; group++) scales[group * SLOTS + slot] = 0;
                ((float*)(values + key_codes(D)))[slot] = 0;
            } else if (kv_ == Kv::fp32) {
                for (int d = 0; d < D; d++) std::memset(keys + (d * SLOTS + slot) * 4, 0, 4);
                std::memset(values + slot * D * 4, 0, D * 4);
            } else {
                keys += slot / 16 * (D / 2) * 64 + slot % 16 * 4, values += slot / 2 * D * 4 + slot % 2 * 2;
                for (int pair = 0; pair < D / 2; pair++) std::memset(keys + pair * 64, 0, 4);
                for (int d = 0; d < D; d++) std::memset(values + d * 4, 0, 2);
            }
        }
    }
}

}  // namespace riyaz
