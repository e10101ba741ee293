#include "training/team.h"

#include <atomic>
#include <thread>
#include <vector>

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>
#endif

namespace riyaz {
namespace {

struct Shared {
    const std::function<void(int, int)>& work;
    const int parts;
    std::atomic<int> next{0}, threads{0};
};

void take(void* data) {
    Shared& shared = *(Shared*)data;
    const int thread = shared.threads.fetch_add(1, std::memory_order_relaxed);
    for (int part; (part = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.parts;)
        shared.work(part, thread);
}

// GCC's interface of OpenMP, which LLVM's library has too: runs function(data) on all threads of a team.
using Parallel = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

Parallel openmp() {
#if __has_include(<dlfcn.h>)
    static const auto found = (Parallel)dlsym(RTLD_DEFAULT, "GOMP_parallel");  // null where torch has none
    return found;
#else
    return nullptr;
#endif
}

}  // namespace

void share(int parts, int threads, const std::function<void(int, int)>& work) {
    Shared shared{work, parts};
    if (parts < 2 || threads < 2) return take(&shared);
    // always the same number of threads: OpenMP ends those that a smaller team leaves out
    if (openmp()) return openmp()(take, &shared, unsigned(threads), 0);
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(take, &shared);
    take(&shared);
    for (auto& thread : others) thread.join();
}

}  // namespace riyaz
