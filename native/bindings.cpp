// The only file with Python headers: checks what comes from Python, then calls the engine.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch.h"

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.doc() = "Riyaz's CPU engine; riyaz.native loads it.";
    m.def("isa", &riyaz::isa, "The instruction set whose kernels run; ValueError if RIYAZ_ISA names none that can.");
    m.def("isas", &riyaz::isas, "The instruction sets that this build holds and this CPU can run, best last.");
}
