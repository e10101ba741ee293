#include "engine/memory.h"

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace riyaz {
namespace {

constexpr size_t HUGE_PAGE = size_t(2) << 20;  // bytes of a huge page
constexpr size_t CHUNK = size_t(16) << 20;     // bytes of a chunk; a matrix of half of that or more has its own
constexpr std::align_val_t LINE{64};           // bytes: where a guarded block begins
constexpr int COLLAPSE = 25;                   // MADV_COLLAPSE of Linux 6.1, which older headers lack

struct Chunk {
    explicit Chunk(size_t bytes) : size(bytes + HUGE_PAGE) {
        mapped = zeroed_pages(size);
        data = (uint8_t*)((uintptr_t(mapped) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    }
    ~Chunk() { give_back_pages(mapped, size); }
    Chunk(const Chunk&) = delete;
    Chunk& operator=(const Chunk&) = delete;

    // Where the system refuses, pages stay small, or it does this in its own time. The last page stays small where it
    // would be less than half full.
    void use_huge_pages() const {
#if defined(__linux__)
        for (size_t at = 0; at + HUGE_PAGE / 2 <= used; at += HUGE_PAGE)
            if (madvise(data + at, HUGE_PAGE, COLLAPSE) != 0) madvise(data + at, HUGE_PAGE, MADV_HUGEPAGE);
#endif
    }

    size_t size, used = 0;
    void* mapped;
    uint8_t* data;
};

std::mutex busy;
std::weak_ptr<Chunk> current;
std::vector<std::weak_ptr<Chunk>> small;  // chunks of small pages

std::shared_ptr<Chunk> new_chunk(size_t bytes) {
    std::erase_if(small, [](const auto& one) { return one.expired(); });
    auto chunk = std::make_shared<Chunk>(bytes);
    small.push_back(chunk);
    return chunk;
}

}  // namespace

void* zeroed_pages(size_t bytes) {
    if (GUARDED) return memset(operator new(bytes, LINE), 0, bytes);
#if defined(_WIN32)
    void* pages = VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!pages) throw std::bad_alloc();
#else
    void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
#endif
    return pages;
}

void give_back_pages(void* pages, [[maybe_unused]] size_t bytes) {
    if (GUARDED) return operator delete(pages, LINE);
#if defined(_WIN32)
    VirtualFree(pages, 0, MEM_RELEASE);
#else
    munmap(pages, bytes);
#endif
}

std::shared_ptr<uint8_t> take_memory(size_t bytes) {
    if (GUARDED) return {(uint8_t*)zeroed_pages(bytes), [bytes](uint8_t* block) { give_back_pages(block, bytes); }};
    const size_t whole = (bytes + 63) / 64 * 64;
    const std::scoped_lock lock(busy);
    auto chunk = whole < CHUNK / 2 ? current.lock() : new_chunk(whole);
    if (!chunk || chunk->used + whole > std::max(CHUNK, whole)) current = chunk = new_chunk(CHUNK);
    uint8_t* at = chunk->data + chunk->used;
    chunk->used += whole;
    return {chunk, at};
}

void begin_chunk() {
    const std::scoped_lock lock(busy);
    current.reset();
}

void use_huge_pages() {
    std::vector<std::shared_ptr<Chunk>> chunks;
    {
        const std::scoped_lock lock(busy);
        for (const auto& one : small)
            if (auto chunk = one.lock()) chunks.push_back(std::move(chunk));
        small.clear();
        current.reset();
    }
    if (chunks.empty()) return;
    try {
        std::thread([chunks = std::move(chunks)] {
            for (const auto& chunk : chunks) chunk->use_huge_pages();
        }).detach();
    } catch (const std::system_error&) {
        // no thread is to be had: pages stay small
    }
}

}  // namespace riyaz
