// Attention over the pages of the cache.
#pragma once

#include "kernels/isa.h"

namespace riyaz {
namespace RIYAZ_ISA {

// The slots of a segment that a token at `position` sees: tokens position - window + 1 ... position, or all up to it.
INLINE uint32_t visible(const Segment& segment, int position, int window) {
    const int count = __builtin_popcount(segment.mask);
    const int oldest = window > 0 ? position - window + 1 : 0;
    const int begin = oldest > segment.first ? oldest - segment.first : 0;  // ranks among the segment's slots
    const int end = position - segment.first + 1 < count ? position - segment.first + 1 : count;
    if (begin >= end) return 0;
    uint32_t mask = segment.mask;
    if ((mask & (mask + 1)) == 0) return mask & ~0u << begin & ~0u >> (32 - end);  // slots from 0 on: rank = slot
    for (int rank = 0; rank < begin; rank++) mask &= mask - 1;
    for (int rank = count; rank > end; rank--) mask &= ~(0x80000000u >> __builtin_clz(mask));
    return mask;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
