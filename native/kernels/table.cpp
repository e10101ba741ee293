// The table of kernels of one instruction set; dispatch.cpp chooses among them.
#include "attention.h"
#include "parts.h"

#define RIYAZ_TEXT(name) #name
#define RIYAZ_NAME(name) RIYAZ_TEXT(name)

namespace riyaz {
namespace RIYAZ_ISA {

const Kernels& table() {
    static const Kernels all = {
        .name = RIYAZ_NAME(RIYAZ_ISA),
#if defined(__AMX_BF16__)
        .amx = true,
        .inputs = inputs,
        .narrow = narrow,
        .narrow_gated = narrow_gated,
        .sketch = sketch,
        .contenders = contenders,
        .wide = wide,
        .wide_gated = wide_gated,
#else
        .amx = false,
        .inputs = inputs,
        .narrow = narrow,
        .narrow_gated = narrow_gated,
        .sketch = sketch,
        .contenders = contenders,
        .wide = nullptr,
        .wide_gated = nullptr,
#endif
        .rms_norm = rms_norm,
        .layer_norm = layer_norm,
        .rotate = rotate,
        .activate = activate,
        .gelu_erf = gelu_erf,
        .softmax_sums = softmax_sums,
        .largest = largest,
        .add = add_to,
        .store = store_token,
        .attention = attend,
#if defined(__AMX_BF16__)
        .attention_wide = attend_wide,
#else
        .attention_wide = nullptr,
#endif
        .row = row,
        .peak = peak,
        .read = read,
    };
    return all;
}

}  // namespace RIYAZ_ISA
}  // namespace riyaz
