// The table of kernels of one instruction set; dispatch.cpp chooses among them.
#include "kernels/isa.h"

#define RIYAZ_TEXT(name) #name
#define RIYAZ_NAME(name) RIYAZ_TEXT(name)

#if defined(RIYAZ_WIDE_TILES)
#define KIND Wide::tiles
#define TILES(kernel) kernel
#else
#define KIND Wide::lanes
#define TILES(kernel) nullptr
#endif
#if defined(RIYAZ_WIDE_TILES) || defined(RIYAZ_WIDE_LANES)
#define MANY_TOKENS(kernel) kernel
#else
#undef KIND
#define KIND Wide::none
#define MANY_TOKENS(kernel) nullptr
#endif

#if defined(RIYAZ_WIDE_LANES) && (defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define BF16 false  // the product of few tokens is as fast
#else
#define BF16 (KIND != Wide::none)
#endif
#if defined(RIYAZ_PAIRS)
#define PAIRS(kernel) kernel
#else
#define PAIRS(kernel) nullptr
#endif

namespace riyaz {
namespace RIYAZ_ISA {

const Kernels& table() {
    static const Kernels all = {
        .name = RIYAZ_NAME(RIYAZ_ISA),
        .wide_kind = KIND,
        .wide_bf16 = BF16,
        .trains_in_pairs = QUICK_PAIRS,
#define KERNEL(RESULT, NAME, ARGUMENTS) .NAME = NAME,
#define KERNEL_IF(WHERE, RESULT, NAME, ARGUMENTS) .NAME = WHERE(NAME),
#include "kernels/kernels.inc"
    };
    return all;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
