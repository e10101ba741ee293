// The table of kernels that each instruction set fills.
#pragma once

namespace riyaz {

struct Kernels {
    const char* name;
};

}  // namespace riyaz
