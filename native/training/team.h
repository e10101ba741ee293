// Threads of training: those of torch.
#pragma once

#include <functional>

namespace riyaz {

// Calls work(part, thread) for all parts 0 ... parts - 1, on `threads` threads that each take the next part when they
// are free; `thread` is below `threads`. `work` must not throw. The threads are those of the OpenMP library that torch
// has loaded: after one of torch's operations they spin for milliseconds to wait for the next, so that threads of our
// own would find no free core.
void share(int parts, int threads, const std::function<void(int, int)>& work);

}  // namespace riyaz
