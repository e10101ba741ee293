// What the fuzz targets share: numbers from the bytes of an input, in their order; zeros once there are no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace riyaz::fuzz {

class Bytes {
  public:
    Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

    bool empty() const { return at_ == end_; }
    uint8_t byte() { return at_ < end_ ? *at_++ : uint8_t(0); }
    bool flag() { return byte() & 1; }
    // From least to greatest, both included, at most 256 of them
    int whole(int least, int greatest) { return least + byte() % (greatest - least + 1); }
    template <class T>
    T any() {
        T value{};
        for (size_t i = 0; i < sizeof(T); i++) ((uint8_t*)&value)[i] = byte();
        return value;
    }
    // So many values of any bits; after the end of the input those that it held come again
    template <class T>
    std::vector<T> values(size_t count) {
        std::vector<T> all(count);
        auto* to = (uint8_t*)all.data();
        const size_t bytes = count * sizeof(T), held = size_t(end_ - at_) < bytes ? size_t(end_ - at_) : bytes;
        if (held) memcpy(to, at_, held);
        for (size_t done = held; held && done < bytes; done *= 2)  // what is written so often again
            memcpy(to + done, to, done < bytes - done ? done : bytes - done);
        at_ += held;
        return all;
    }

  private:
    const uint8_t *at_, *end_;
};

// Ends the process, as a sanitizer's report does, where something does not hold that must.
inline void must(bool holds, const char* what) {
    if (holds) return;
    fprintf(stderr, "WRONG: %s\n", what);
    abort();
}

}  // namespace riyaz::fuzz
