// What the checks of training share: tensors of float and of bfloat16, and sums in double.
#pragma once

#include <new>

#include "tests/checks.h"

namespace riyaz::checks {

constexpr double ROUNDED = 1.0 / 256;  // of a result that is rounded to bfloat16 once
constexpr float GUARD = 12288;         // a number of bfloat16
constexpr int GUARDS = 16;             // stand behind what a kernel writes

// A check of kernels with tensors of one type
template <double (*CHECK)(const Sets&, bool bf16), bool BFLOAT16>
double typed(const Sets& k) {
    return CHECK(k, BFLOAT16);
}

// A number in double, and the sum of the sizes of its terms, each times `worth`: how much larger its own error is
struct Sum {
    double value = 0, size = 0;
    void add(double term, double worth = 1) { value += term, size += worth * std::fabs(term); }
    void add(const Sum& factor, double x) { value += factor.value * x, size += factor.size * std::fabs(x); }
};
using Sums = std::vector<Sum>;

inline Floats with_guards(Floats numbers) {
    numbers.resize(numbers.size() + GUARDS, GUARD);
    return numbers;
}
inline double guarded(const Floats& numbers) {
    return must(std::all_of(numbers.end() - GUARDS, numbers.end(), [](float x) { return x == GUARD; }));
}

// As torch allocates: where a line of the cache begins
template <class Number>
struct Aligned {
    using value_type = Number;
    Number* allocate(size_t n) { return (Number*)::operator new(n * sizeof(Number), std::align_val_t(64)); }
    void deallocate(Number* at, size_t) { ::operator delete(at, std::align_val_t(64)); }
    bool operator==(const Aligned&) const { return true; }
};

// Numbers as a kernel takes them: of float or of bfloat16
class Tensor {
  public:
    Tensor(bool is_bf16, size_t n) : Tensor(is_bf16, Floats(n, NONE)) {}
    Tensor(bool is_bf16, const Floats& numbers) : bf16(is_bf16), fp32(with_guards(numbers)) {
        for (const float x : fp32) bits.push_back(to_bf16(x));
    }
    float operator[](size_t i) const { return bf16 ? from_bf16(bits[i]) : fp32[i]; }
    void put(size_t i, float x) { fp32[i] = x, bits[i] = to_bf16(x); }
    void* data() { return bf16 ? (void*)bits.data() : (void*)fp32.data(); }
    size_t size() const { return bits.size() - GUARDS; }

    // `near`: of the sizes of all terms
    double error_from(const Sums& wanted, double near = NEAR) const {
        double worst = 0;
        for (int i = 0; i < GUARDS; i++) worst = std::max(worst, must((*this)[size() + i] == GUARD));
        for (size_t i = 0; i < size(); i++) {
            const double rounding = bf16 ? ROUNDED * std::fabs(wanted[i].value) : 0;
            worst = std::max(worst, error((*this)[i], wanted[i].value, near * wanted[i].size + rounding));
        }
        return worst;
    }
    // Whether elements [at, at + n) have the bits of another tensor's
    bool is_same(const Tensor& other, size_t at, size_t n) const {
        return bf16 ? memcmp(&bits[at], &other.bits[at], 2 * n) == 0 : memcmp(&fp32[at], &other.fp32[at], 4 * n) == 0;
    }

  private:
    bool bf16;
    Floats fp32;
    std::vector<uint16_t, Aligned<uint16_t>> bits;
};

inline Tensor random_tensor(bool bf16, uint32_t seed, size_t n, float size = 1, bool damaged = false) {
    Tensor x(bf16, Random(seed).numbers(n, size));
    if (damaged) x.put(n / 2, NONE);
    return x;
}

}  // namespace riyaz::checks
