// The table of this instruction set. Compiled once for each: see CMakeLists.txt for what such a file must not hold.
#include "kernels.h"

#define RIYAZ_TEXT_OF(name) #name
#define RIYAZ_TEXT(name) RIYAZ_TEXT_OF(name)

namespace riyaz::RIYAZ_ISA {

const Kernels& table();

namespace {
constexpr Kernels kTable{RIYAZ_TEXT(RIYAZ_ISA)};
}  // namespace

const Kernels& table() { return kTable; }

}  // namespace riyaz::RIYAZ_ISA
