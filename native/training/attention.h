// Operations of training, each over all threads: one at a time in a process.
#pragma once

#include <vector>

#include "training/attention_jobs.h"

namespace riyaz {

// `rows` are the lengths of the rows behind the prefix, `job.window` is 0 where there is none. Equal inputs give equal
// bits, whatever the number of threads.
void attention_forward(PackedAttention job, const std::vector<int>& rows, int threads);
void attention_backward(PackedAttention job, const std::vector<int>& rows, int threads);

}  // namespace riyaz
