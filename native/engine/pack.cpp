#include "engine/pack.h"

#include <cmath>
#include <stdexcept>

#include "simd/numbers.h"

namespace riyaz {
namespace {

uint16_t to_half(float value) {  // ties to even
    uint32_t word;
    memcpy(&word, &value, 4);
    const uint16_t sign = uint16_t(word >> 16 & 0x8000);
    word &= 0x7fffffff;
    if (word > 0x7f800000) return sign | 0x7e00;
    if (word >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
    if (word < 0x38800000) {                       // no normal number: a multiple of 2^-24
        float size;
        memcpy(&size, &word, 4);
        return sign | uint16_t(std::nearbyintf(size * 0x1p24f));
    }
    const uint32_t odd = word >> 13 & 1;
    return sign | uint16_t((word - 0x38000000 + 0xfff + odd) >> 13);
}

uint32_t word(const uint8_t* bytes) {
    uint32_t four;
    memcpy(&four, bytes, 4);
    return four;
}

uint16_t word16(const uint8_t* bytes) {
    uint16_t two;
    memcpy(&two, bytes, 2);
    return two;
}

bool is_finite_half(uint16_t bits) { return (bits & 0x7c00) != 0x7c00; }

// A code from least to greatest; the least where the number is none
int code_of(float number, float least, float greatest) {
    return int(std::min(std::max(least, std::nearbyintf(number)), greatest));
}

constexpr uint32_t LOW = 0x0f0f0f0f, HIGH = 0xf0f0f0f0, SIGNS = 0x80808080;

// 8 codes from the low, or the high, halves of 8 bytes
uint32_t low_halves(const uint8_t* b) { return (word(b) & LOW) | (word(b + 4) & LOW) << 4; }
uint32_t high_halves(const uint8_t* b) { return (word(b) >> 4 & LOW) | (word(b + 4) & HIGH); }

void put(uint8_t (&at)[4], uint32_t four) { memcpy(at, &four, 4); }

template <class Tile>
Tile* tiles(Matrix& matrix, int row) {
    return (Tile*)(matrix.bytes.get() + size_t(row / ROWS) * matrix.weights.step);
}

// A row of an int4 matrix, to write
struct Int4Row {
    const Weights& w;
    int row;

    // Codes of columns 32 g ... 32 g + 31, and their group's scale and minimum
    uint8_t (&word(int g, int z) const)[4] { return (*(Nibbles*)w.int4_part(row / ROWS, g).codes)[z][row % ROWS]; }
    void put_scale(int g, uint16_t scale, uint16_t minimum) const {
        const Int4Part part = w.int4_part(row / ROWS, g);
        ((uint16_t*)part.scale)[row % ROWS] = scale;
        if (part.minimum) ((uint16_t*)part.minimum)[row % ROWS] = minimum;
    }
};

// Q4_1, or Q4_0 where the matrix has no minimums
bool row_q4(Int4Row row, const uint8_t* block, int groups) {
    bool finite = true;
    const bool with_minimum = row.w.minimum;
    for (int g = 0; g < groups; g++, block += with_minimum ? 20 : 18) {
        const uint16_t scale = word16(block), minimum = with_minimum ? word16(block + 2) : 0;
        const uint8_t* q = block + (with_minimum ? 4 : 2);
        put(row.word(g, 0), low_halves(q)), put(row.word(g, 1), low_halves(q + 8));
        put(row.word(g, 2), high_halves(q)), put(row.word(g, 3), high_halves(q + 8));
        row.put_scale(g, scale, minimum);
        finite = finite && is_finite_half(scale) && is_finite_half(minimum);
    }
    return finite;
}

bool row_q4_k(Int4KTile* tile, int lane, const uint8_t* block, int supers) {
    bool finite = true;
    for (int s = 0; s < supers; s++, tile++, block += 144) {
        tile->scale[lane] = word16(block), tile->minimum[lane] = word16(block + 2);
        finite = finite && is_finite_half(tile->scale[lane]) && is_finite_half(tile->minimum[lane]);
        const uint8_t *six = block + 4, *q = block + 16;
        for (int i = 0; i < 8; i++) {  // 6 bits each, in 12 bytes: see sources/gguf_blocks.py
            auto& group = tile->groups[i];
            group.s[lane] = i < 4 ? six[i] & 63 : (six[i + 4] & 15) | six[i - 4] >> 6 << 4;
            group.m[lane] = i < 4 ? six[i + 4] & 63 : six[i + 4] >> 4 | six[i] >> 6 << 4;
            const uint8_t* half = q + i / 2 * 32;
            for (int z = 0; z < 4; z++)
                put(group.codes[z][lane], i % 2 ? high_halves(half + 8 * z) : low_halves(half + 8 * z));
        }
    }
    return finite;
}

// A row of an int8 block: both halves of its codes
struct Int8Row {
    Int8Upper* upper;
    Int8Lower* lower;
    int lane;

    Int8Row(Matrix& matrix, int row)
        : upper((Int8Upper*)matrix.weights.upper(row / ROWS)),
          lower((Int8Lower*)matrix.weights.lower(row / ROWS)),
          lane(row % ROWS) {}

    void put_group(int g, const uint8_t (&codes)[GROUP], uint16_t scale) {
        for (int z = 0; z < 4; z++) {
            put(upper[g].codes[z][lane], high_halves(codes + 8 * z));
            put(lower[g].codes[z][lane], low_halves(codes + 8 * z));
        }
        upper[g].scale[lane] = scale;
    }
};

bool row_q8_0(Int8Row row, const uint8_t* block, int groups) {
    bool finite = true;
    for (int g = 0; g < groups; g++, block += 34) {
        uint8_t codes[GROUP];
        for (int i = 0; i < GROUP; i += 4) {
            const uint32_t four = word(block + 2 + i) ^ SIGNS;
            memcpy(codes + i, &four, 4);
        }
        row.put_group(g, codes, word16(block));
        finite = finite && is_finite_half(word16(block));
    }
    return finite;
}

bool row_q5_0(Int8Row row, const uint8_t* block, int groups) {
    bool finite = true;
    for (int g = 0; g < groups; g++, block += 22) {
        const uint32_t fifth = word(block + 2);
        uint8_t codes[GROUP];
        for (int i = 0; i < GROUP; i++) {
            const int four = i < 16 ? block[6 + i] & 15 : block[6 + i - 16] >> 4;
            codes[i] = uint8_t((four | int(fifth >> i & 1) << 4) - 16 + 128);
        }
        row.put_group(g, codes, word16(block));
        finite = finite && is_finite_half(word16(block));
    }
    return finite;
}

void round_int8(Int8Row row, int g, const float* w, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++) largest = std::max(largest, std::fabs(w[i]));
    const uint16_t bits = to_half(largest / 127);
    const float scale = half(bits), inverse = scale > 0 ? 1 / scale : 0;
    uint8_t codes[GROUP];
    for (int i = 0; i < GROUP; i++) {
        codes[i] = uint8_t((i < n ? code_of(w[i] * inverse, -127, 127) : 0) + 128);
    }
    row.put_group(g, codes, bits);
}

// A row of `n` columns with one scale, rounded up so that no code is cut off; not a number where a weight is none
void round_row8(Matrix& matrix, int row, const float* w, int n, bool finite) {
    float largest = 0;
    for (int c = 0; c < n; c++) largest = std::max(largest, std::fabs(w[c]));
    const float step = largest / 127;
    uint32_t bits;
    memcpy(&bits, &step, 4);
    const uint16_t upper = finite ? uint16_t((bits + 0xffff) >> 16) : 0x7fc0;
    const float scale = from_bf16(upper), inverse = scale > 1e-37f ? 1 / scale : 0;
    const int lane = row % ROWS;
    ((uint16_t*)matrix.weights.row_scales(row / ROWS))[lane] = upper;
    for (int c = 0; c < n; c++)
        tiles<int8_t>(matrix, row)[c * ROWS + lane] = int8_t(finite ? std::nearbyintf(w[c] * inverse) : 0);
}

// `n` columns from the group that begins at column 32 g: from the least to the greatest weight, or without minimums
// from the largest, which has the code 0
void round_int4(Int4Row row, int g, const float* w, int n) {
    float least = w[0], greatest = w[0];
    for (int i = 1; i < n; i++) least = std::min(least, w[i]), greatest = std::max(greatest, w[i]);
    const uint16_t lowest = to_half(least);
    const bool with_minimum = row.w.minimum;
    const float largest = greatest > -least ? greatest : least;
    const uint16_t bits = to_half(with_minimum ? (greatest - half(lowest)) / 15 : largest / -8);
    const float scale = half(bits), inverse = scale != 0 ? 1 / scale : 0,
                zero = with_minimum ? -half(lowest) : 8 * scale;
    row.put_scale(g, bits, lowest);
    for (int i = 0; i < padded(n, GROUP); i++) {
        const int code = i < n ? code_of((w[i] + zero) * inverse, 0, 15) : 0;
        uint8_t& both = row.word(g + i / GROUP, i % GROUP / 8)[i % 4];
        both = i % 8 < 4 ? uint8_t(code) : uint8_t(both | code << 4);  // the low half comes first
    }
}

bool round_row(Matrix& matrix, int row, const float* w, int cols) {
    const int lane = row % ROWS, groups = padded(cols, GROUP) / GROUP;
    float checked = 0;  // stays 0 unless a number is not finite
    for (int c = 0; c < cols; c++) checked += w[c] * 0;
    switch (matrix.weights.format) {
        case Format::fp32:
            for (int c = 0; c < cols; c++) tiles<float>(matrix, row)[c * ROWS + lane] = w[c];
            break;
        case Format::bf16:
            for (int c = 0; c < cols; c++)
                tiles<uint16_t>(matrix, row)[(c / 2 * ROWS + lane) * 2 + c % 2] = to_bf16(w[c]);
            break;
        case Format::int8:
            for (int g = 0; g < groups; g++)
                round_int8(Int8Row(matrix, row), g, w + g * GROUP, std::min(GROUP, cols - g * GROUP));
            break;
        case Format::int4:
            for (int c = 0; c < cols; c += matrix.weights.group)
                round_int4({matrix.weights, row}, c / GROUP, w + c, std::min(matrix.weights.group, cols - c));
            break;
        case Format::int8row:
            round_row8(matrix, row, w, cols, checked == 0);
            break;
        case Format::int4k:
            throw std::invalid_argument("int4k is packed from GGUF's Q4_K only");
        case Format::ternary:
        case Format::trits:
            throw std::invalid_argument("ternary weights are packed from codes and scales");
    }
    return checked == 0;
}

}  // namespace

bool pack(Matrix& matrix, int first, int rows, const float* values, int cols) {
    return each_row(first, rows,
                    [&](int row) { return round_row(matrix, row, values + size_t(row - first) * cols, cols); });
}

bool pack_bf16(Matrix& matrix, int first, int rows, const uint16_t* bits, int cols) {
    return each_row(first, rows, [&](int row) {
        const uint16_t* from = bits + size_t(row - first) * cols;
        if (matrix.weights.format == Format::bf16) {
            uint16_t* to = tiles<uint16_t>(matrix, row) + row % ROWS * 2;
            bool finite = true;
            for (int c = 0; c < cols; c++) {
                to[c / 2 * ROWS * 2 + c % 2] = from[c];
                finite = finite && (from[c] & 0x7f80) != 0x7f80;
            }
            return finite;
        }
        std::vector<float> values(cols);
        for (int c = 0; c < cols; c++) {
            const uint32_t word = uint32_t(from[c]) << 16;
            memcpy(&values[c], &word, 4);
        }
        return round_row(matrix, row, values.data(), cols);
    });
}

Format format_of(const std::string& type) {
    if (type == "F32") return Format::fp32;
    if (type == "F16" || type == "BF16") return Format::bf16;
    if (type == "Q4_0" || type == "Q4_1") return Format::int4;
    if (type == "Q4_K") return Format::int4k;
    return Format::int8;
}

bool has_minimum(const std::string& type) { return type != "Q4_0"; }

size_t gguf_row_bytes(const std::string& type, int cols) {
    const int size = type == "Q4_0"   ? 18
                     : type == "Q4_1" ? 20
                     : type == "Q5_0" ? 22
                     : type == "Q8_0" ? 34
                     : type == "Q4_K" ? 144
                                      : 0;
    const int weights = type == "Q4_K" ? SUPER : GROUP;
    return cols % weights ? 0 : size_t(cols / weights) * size;
}

bool pack_gguf(Matrix& matrix, int first, int rows, const std::string& type, const uint8_t* blocks, int cols) {
    const size_t bytes = gguf_row_bytes(type, cols);
    const Weights& w = matrix.weights;
    if (!bytes || w.format != format_of(type) || (w.format == Format::int4 && w.minimum != has_minimum(type)))
        throw std::invalid_argument("no packing of " + type);
    const int count = cols / (type == "Q4_K" ? SUPER : GROUP);
    return each_row(first, rows, [&](int row) {
        const uint8_t* from = blocks + size_t(row - first) * bytes;
        const int lane = row % ROWS;
        if (type == "Q4_K") return row_q4_k(tiles<Int4KTile>(matrix, row), lane, from, count);
        if (type == "Q8_0") return row_q8_0(Int8Row(matrix, row), from, count);
        if (type == "Q5_0") return row_q5_0(Int8Row(matrix, row), from, count);
        return row_q4({matrix.weights, row}, from, count);
    });
}

}  // namespace riyaz
