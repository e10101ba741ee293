#include "memory.h"

#include <sys/mman.h>

#include <mutex>
#include <new>

namespace riyaz {
namespace {

constexpr size_t HUGE = size_t(2) << 20;    // bytes of a huge page
constexpr size_t CHUNK = size_t(16) << 20;  // bytes of a chunk; a matrix of half of that or more has its own

struct Chunk {
    explicit Chunk(size_t bytes) : size(bytes + HUGE) {
        mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        data = (uint8_t*)((uintptr_t(mapped) + HUGE - 1) / HUGE * HUGE);
#if defined(MADV_HUGEPAGE)
        madvise(data, bytes, MADV_HUGEPAGE);  // where the system refuses, pages stay small
#endif
    }
    ~Chunk() { munmap(mapped, size); }
    Chunk(const Chunk&) = delete;
    Chunk& operator=(const Chunk&) = delete;

    size_t size;
    void* mapped;
    uint8_t* data;
};

std::mutex busy;
std::weak_ptr<Chunk> current;
size_t used = 0;  // bytes of the current chunk

}  // namespace

std::shared_ptr<uint8_t> take_memory(size_t bytes) {
    const size_t whole = (bytes + 63) / 64 * 64;
    if (whole >= CHUNK / 2) {
        auto own = std::make_shared<Chunk>(whole);
        return {own, own->data};
    }
    const std::scoped_lock lock(busy);
    auto chunk = current.lock();
    if (!chunk || used + whole > CHUNK) {
        current = chunk = std::make_shared<Chunk>(CHUNK);
        used = 0;
    }
    uint8_t* at = chunk->data + used;
    used += whole;
    return {chunk, at};
}

void begin_chunk() {
    const std::scoped_lock lock(busy);
    current.reset();
}

}  // namespace riyaz
