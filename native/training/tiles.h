// The products of dense.h on AMX's tiles.
#pragma once

#include "training/dense.h"

namespace riyaz {

void tiles_forward(const Kernels& k, const DenseJob& job, int threads);
void tiles_backward(const Kernels& k, const DenseJob& job, int threads);

}  // namespace riyaz
