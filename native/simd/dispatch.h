// Which instruction set's kernels run in this process.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace riyaz {

// The kernels of the best instruction set that this CPU and this build have, chosen at the first call; the
// environment variable RIYAZ_ISA forces one. Throws std::invalid_argument if it names none that can run.
const Kernels& kernels();

// The kernels of an instruction set by name. Throws std::invalid_argument if it cannot run here.
const Kernels& kernels_of(const std::string& isa);

// The name of the set whose kernels() are used. Throws as kernels() does.
const char* isa();

// The sets that this build holds and this CPU can run, best last.
std::vector<std::string> isas();

}  // namespace riyaz
