// Memory that an operation of training takes for itself while it runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

namespace riyaz {

struct Release {
    void operator()(void* at) const { ::operator delete[](at, std::align_val_t(64)); }
};
template <class Number>
using Space = std::unique_ptr<Number[], Release>;

template <class Number>
Space<Number> space(size_t count) {
    return Space<Number>((Number*)::operator new[](count * sizeof(Number), std::align_val_t(64)));
}
inline Space<float> zeros(size_t count) {
    Space<float> numbers = space<float>(count);
    std::fill_n(numbers.get(), count, 0.0f);
    return numbers;
}

inline int parts_of(int count, int each) { return (count + each - 1) / each; }

}  // namespace riyaz
