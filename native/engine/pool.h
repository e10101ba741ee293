// Threads that work on one forward pass together: all run the same function, and meet at barriers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace riyaz {

// Memory that a thread reads next
struct Ahead {
    const uint8_t *at = nullptr, *end = nullptr;
};

// A waiting thread spins for some microseconds, since barriers and passes follow each other closely, and then sleeps:
// where other processes want the cores too, a thread that spins or yields uses up its share of them while the one that
// it waits for has none. Barriers of OpenMP and of the standard library cost 0.3 to 24 microseconds; this one 0.2.
class Pool {
  public:
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }
    // Runs work(thread) on every thread, the caller being thread 0, and returns when all have finished.
    void run(const std::function<void(int)>& work);
    // Called by all threads inside `run`: none goes on before all have arrived. A thread that waits fetches `ahead`
    // into its cache meanwhile.
    void barrier(Ahead& ahead);
    void barrier() {
        Ahead nothing;
        barrier(nothing);
    }
    // The share of the last run's time, all threads together, that they slept at barriers: much where other processes
    // have the cores
    double slept() const { return slept_; }

  private:
    void serve(int thread);

    const int size_;
    std::vector<std::thread> threads_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<int64_t> sleep_ns_{0};
    double slept_ = 0;
    alignas(64) std::atomic<uint32_t> started_{0};  // number of passes begun
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> round_{0};
    std::atomic<bool> ending_{false};
};

}  // namespace riyaz
