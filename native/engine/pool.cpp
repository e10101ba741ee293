#include "engine/pool.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace riyaz {
namespace {

// Looks for the next run before a thread sleeps: half a millisecond, longer than Python takes from one pass to the next
constexpr int IDLE_SPINS = 10000;
constexpr int SPINS = 1000;       // of a thread at a barrier before it sleeps: 50 microseconds
constexpr ptrdiff_t FETCH = 512;  // bytes fetched between two looks: more would delay the next look

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

}  // namespace

Pool::Pool(int threads) : size_(threads < 1 ? 1 : threads) {
    for (int thread = 1; thread < size_; thread++) threads_.emplace_back([this, thread] { serve(thread); });
}

Pool::~Pool() {
    ending_ = true;
    started_.fetch_add(1);
    started_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Pool::run(const std::function<void(int)>& work) {
    sleep_ns_.store(0, std::memory_order_relaxed);
    const int64_t start = now_ns();
    work_ = &work;
    started_.fetch_add(1, std::memory_order_seq_cst);
    started_.notify_all();
    work(0);
    barrier();
    slept_ = double(sleep_ns_.load(std::memory_order_relaxed)) / (double(now_ns() - start) * size_);
}

void Pool::barrier(Ahead& ahead) {
    if (size_ == 1) return;
    const uint32_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        // not only a release: libstdc++ wakes nobody if it reads then that nobody waits, and that read could pass the
        // store, so that a thread which falls asleep meanwhile would sleep for ever
        round_.store(round + 1, std::memory_order_seq_cst);
        round_.notify_all();
        return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
        if (spins < SPINS) {
            for (const uint8_t* stop = ahead.at + std::min<ptrdiff_t>(ahead.end - ahead.at, FETCH); ahead.at < stop;
                 ahead.at += 64)
                __builtin_prefetch(ahead.at, 0, 2);
            pause();
            continue;
        }
        const int64_t start = now_ns();
        round_.wait(round, std::memory_order_acquire);
        sleep_ns_.fetch_add(now_ns() - start, std::memory_order_relaxed);
    }
}

void Pool::serve(int thread) {
    uint32_t seen = 0;
    while (true) {
        for (int spins = 0; started_.load(std::memory_order_acquire) == seen; spins++) {
            if (spins < IDLE_SPINS)
                pause();
            else
                started_.wait(seen, std::memory_order_acquire);
        }
        seen++;
        if (ending_) return;
        (*work_)(thread);
        barrier();
    }
}

}  // namespace riyaz
