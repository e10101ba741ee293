// What the files with Python headers share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "kernels/layout.h"

namespace nb = nanobind;

namespace riyaz {

template <class T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

[[noreturn]] inline void refuse(const std::string& what) { throw std::invalid_argument(what); }

template <class T>
T* fresh(size_t n, nb::capsule& owner) {
    T* data = new T[n ? n : 1]();
    owner = nb::capsule(data, [](void* p) noexcept { delete[] (T*)p; });
    return data;
}

// Throws std::invalid_argument for a name that is none.
Format format_named(const std::string& name);

}  // namespace riyaz
