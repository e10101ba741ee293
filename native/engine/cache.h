// The cache of keys and values: sequences of tokens, each in a slot of a page, and pages that sequences share.
//
// A page holds 32 slots in all layers and key/value heads. A sequence is a list of pages with a mask of its slots in
// each, in ascending order; forks copy the list and not the pages. Nothing here is safe for several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/layout.h"

namespace riyaz {

// Keys and values would take more than the limit.
struct CacheFull : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Cache {
  public:
    // The place of one token
    struct Slot {
        uint8_t* page;
        int slot;
    };

    // `head` is the head size, not padded; `limit` the most bytes of pages in use.
    Cache(int layers, int kv_heads, int head, Kv kv, size_t limit);
    ~Cache();
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;

    // A new, empty sequence
    int open();
    // A new sequence after the first `length` tokens of another, as for `fork`. Its own tokens begin on a new page, so
    // that where they stand, and with that the last bits of their results, does not depend on other sequences after the
    // same tokens.
    int open_after(int sequence, int length);
    // A new sequence that shares the first `length` tokens of another. More than the other has now are allowed, if it
    // has them when the fork is first appended to. Forks of one sequence put their first tokens on common pages:
    // thousands of forks by a token each take few pages.
    int fork(int sequence, int length);
    // Ends a sequence; pages that no other sequence has are free again.
    void close(int sequence);

    // Keeps the first `length` tokens of a sequence. The others are in pages of its own, and their values finite.
    void truncate(int sequence, int length);

    // Number of tokens; those of a fork count although the other sequence may not have them yet
    int length(int sequence) const;
    // Throws as `append` does where appending so many tokens to each of these sequences, each named once, would exceed
    // the limit, forks not counted.
    void expect(const std::vector<std::pair<int, int>>& appends) const;
    // Appends n tokens to a sequence, and their slots to `slots`. Throws CacheFull and changes nothing where the pages
    // would exceed the limit.
    void append(int sequence, int n, std::vector<Slot>& slots);
    // Keeps what was appended: to be called when keys and values of all layers are stored.
    void commit();
    // Takes back what was appended since the last commit, and clears its slots, which may hold NaN: attention
    // multiplies values that a token does not see by zero.
    void rollback();
    // Appends the segments of a sequence to `segments`, in the order of its tokens.
    void segments(int sequence, std::vector<Segment>& segments) const;

    // Where keys and values of a layer and head begin in each page, in bytes
    size_t keys(int layer, int kv_head) const { return (size_t(layer) * kv_heads_ + kv_head) * part_bytes_; }
    size_t values(int layer, int kv_head) const { return keys(layer, kv_head) + key_bytes(padded_head_, kv_); }

    size_t page_bytes() const { return page_bytes_; }
    size_t bytes() const { return pages_ * page_bytes_; }  // of pages in use
    size_t limit() const { return limit_; }
    size_t reserved() const;  // bytes of address space; of these only pages that were ever in use take memory
    // The most bytes that a sequence takes for so many tokens of its own: they begin on a new page
    size_t bytes_of(int tokens) const { return size_t(padded(tokens, SLOTS) / SLOTS) * page_bytes_; }
    int sequences() const { return int(sequences_.size()); }

  private:
    struct Slab;

    struct Page {
        uint8_t* data = nullptr;
        Slab* slab = nullptr;
        int parts = 0;   // of sequences: the page is free when there are none
        int used = 0;    // slots given out: the next token takes the slot of this number
        int family = 0;  // of the sequence that began it
    };

    // The slots of a page that belong to a sequence
    struct PagePart {
        Page* page;
        uint32_t mask;
    };

    // How a sequence begins, and where it may go on
    struct Head {
        int parent = 0, shared = 0;  // it still has to take the first `shared` tokens of `parent`; else 0
        bool forked = false;         // and not appended to since: goes on where other forks of its family do
        bool sealed = false;         // goes on with a new page
    };

    struct Sequence {
        Head head;
        std::vector<PagePart> parts;
        int length = 0;  // tokens of `parts`
        int family = 0;  // the same for all forks of a sequence
    };

    struct Change {
        int sequence;
        Head before;
        int appended;
    };

    Sequence& find(int id);
    const Sequence& find(int id) const;
    int keep(Sequence&& sequence);
    const Sequence& begin(int id, int length, Sequence& sequence);
    static void share(const Sequence& from, int length, Sequence& to);
    static int room(const PagePart& last);
    void refuse_above_limit(size_t bytes) const;
    void take(Sequence& sequence, Page* page, int n, std::vector<Slot>& slots);
    void cut(Sequence& sequence, int n);
    void drop(PagePart part);

    Page* new_page(int family);
    void free_page(Page* page);
    void clear(const Page& page, int slot) const;

    const int layers_, kv_heads_, padded_head_;
    const Kv kv_;
    const size_t part_bytes_, page_bytes_, limit_;
    size_t pages_ = 0;  // in use
    int last_id_ = 0;
    std::unordered_map<int, Sequence> sequences_;
    std::unordered_map<int, Page*> common_;  // family -> the page that its forks go on with
    std::vector<std::unique_ptr<Slab>> slabs_;
    std::vector<Change> changes_;  // since the last commit
};

}  // namespace riyaz
