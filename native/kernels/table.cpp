// The table of kernels of one instruction set; simd/dispatch.cpp chooses among them.
#include "kernels/isa.h"

#define RIYAZ_TEXT(name) #name
#define RIYAZ_NAME(name) RIYAZ_TEXT(name)

#if defined(RIYAZ_TILES)
#define KIND ManyTokens::tiles
#define TILES(kernel) kernel
#define MANY_TOKENS(kernel) kernel
#elif defined(RIYAZ_CODES)
#define KIND ManyTokens::codes
#define TILES(kernel) nullptr
#define MANY_TOKENS(kernel) kernel
#else
#define KIND ManyTokens::none
#define TILES(kernel) nullptr
#define MANY_TOKENS(kernel) nullptr
#endif

#if defined(RIYAZ_CODES) && (defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define BF16 false  // the product of few tokens is as fast
#else
#define BF16 (KIND != ManyTokens::none)
#endif
#if defined(RIYAZ_PAIRS)
#define PAIRS(kernel) kernel
#else
#define PAIRS(kernel) nullptr
#endif
#if defined(RIYAZ_PAIRS) || defined(RIYAZ_TILES)
#define DENSE(kernel) kernel
#else
#define DENSE(kernel) nullptr
#endif

namespace riyaz {
namespace RIYAZ_ISA {

const Kernels& table() {
    static const Kernels all = {
        .name = RIYAZ_NAME(RIYAZ_ISA),
        .many_tokens_by = KIND,
        .many_tokens_bf16 = BF16,
        .trains_in_pairs = QUICK_PAIRS,
#define KERNEL(RESULT, NAME, ARGUMENTS) .NAME = NAME,
#define KERNEL_IF(WHERE, RESULT, NAME, ARGUMENTS) .NAME = WHERE(NAME),
#include "kernels/kernels.inc"
    };
    return all;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
