// Products of integer weights with many single tokens, bit for bit those of few_tokens.cpp: codes become bytes, and
// scales floats, once for all tokens; the operations on one row and one token are the same. It takes registers for the
// sums of two blocks and six tokens.
#include "kernels/isa.h"
#include "kernels/products/panels.h"
#include "simd/simd.h"

namespace riyaz {
namespace RIYAZ_ISA {

#if defined(__AVX512F__)
namespace {

constexpr int MANY = 96;  // tokens from which on unpacking pays

bool has_nibbles(Format format) { return format == Format::int4 || format == Format::int4k; }
bool is_many(const Weights& w, int T, const void* scratch) {
    return scratch && T >= MANY && (w.format == Format::int8 || has_nibbles(w.format));
}

void unpack_nibbles(const Weights& w, int b, const Panel& panel) {
    uint8_t* out = panel.codes;
    for (int g = 0; g < int(w.groups()); g++) {
        const NibbleGroup group = nibble_group(w, b, g);
#pragma GCC unroll 4
        for (int z = 0; z < 4; z++, out += 128) {
            const B both = load_bytes((*group.codes)[z]);
            store_bytes(out, low(both)), store_bytes(out + 64, high(both));
        }
        store(panel.scales + g * ROWS, group.scale);
        store(panel.minimums + g * ROWS, group.minimum);
    }
}

void unpack_bytes(const Weights& w, int b, const Panel& panel) {
    const Int8Upper* upper = w.upper(b);
    const Int8Lower* lower = w.lower(b);
    uint8_t* out = panel.codes;
    for (int g = 0; g < int(w.groups()); g++) {
#pragma GCC unroll 4
        for (int z = 0; z < 4; z++, out += 128) {
            const B up = load_bytes(upper[g].codes[z]), down = load_bytes(lower[g].codes[z]);
            store_bytes(out, whole_low(up, down)), store_bytes(out + 64, whole_high(up, down));
        }
        store(panel.scales + g * ROWS, load_half(upper[g].scale));
    }
}

void unpack(const Weights& w, int b, const Panel& panel) {
    (has_nibbles(w.format) ? unpack_nibbles : unpack_bytes)(w, b, panel);
}

// Where T is no multiple of a tile's tokens, the last tile computes some again.
template <int BEGINS, bool MINIMUMS>
void all_tokens(const Panel* panels, const Inputs& x, int T, const PanelOutput& out) {
    for (int t = 0; t < T; t += TOKENS_AT_ONCE) {
        const int first = min_of(t, T - TOKENS_AT_ONCE);
        prefetch_output<2, TOKENS_AT_ONCE>(out, first);
        Products<2, TOKENS_AT_ONCE> products;
        multiply_codes<GROUP, BEGINS, MINIMUMS, true>(panels, x.from(first), products);
        products.put_to(out, first, t - first);
    }
}

// Two blocks, of two matrices or of one
void pair(const Weights& one, int i, const Weights& two, int j, const Inputs& x, int T, const PanelOutput& out,
          void* scratch) {
    const Panel panels[2] = {panel_at(scratch, 0, x.cols), panel_at(scratch, 1, x.cols)};
    unpack(one, i, panels[0]), unpack(two, j, panels[1]);
    (has_nibbles(one.format) ? all_tokens<0, true> : all_tokens<BEGIN, false>)(panels, x, T, out);
}

}  // namespace

int few_tokens_unpacked(const Weights& w, int begin, int end, const Inputs& x, int T, float* y, size_t stride,
                        bool add_, void* scratch) {
    if (!is_many(w, T, scratch)) return begin;
    for (; begin + 2 <= end; begin += 2) {
        const int row = begin * ROWS;
        pair(w, begin, w, begin + 1, x, T, {y + row, stride, w.rows - row, add_, false, {}}, scratch);
    }
    return begin;
}

int few_tokens_gated_unpacked(const Weights& gate, const Weights& up, int begin, int end, Activation activation,
                              const Inputs& x, int T, float* y, size_t stride, void* scratch) {
    if (!is_many(gate, T, scratch) || !is_many(up, T, scratch) || has_nibbles(gate.format) != has_nibbles(up.format))
        return begin;
    for (; begin < end; begin++) {
        const int row = begin * ROWS;
        pair(gate, begin, up, begin, x, T, {y + row, stride, gate.rows - row, false, true, activation}, scratch);
    }
    return end;
}

#endif

}  // namespace RIYAZ_ISA
}  // namespace riyaz
