// From weights in files to packed matrices.
#pragma once

#include <string>
#include <thread>

#include "engine/model.h"

namespace riyaz {

// Each writes rows first ... first + rows - 1 of a matrix and returns whether all numbers were finite.

// Floats, rounded to the matrix's format: int8 in groups of 32 columns with |code| <= 127, int4 from the least to the
// greatest weight of a group, or without minimums from the largest
bool pack(Matrix& matrix, int first, int rows, const float* values, int cols);
bool pack_bf16(Matrix& matrix, int first, int rows, const uint16_t* bits, int cols);
// Blocks of GGUF, without loss: Q4_1 into int4, Q4_0 into int4 without minimums, Q4_K into int4k, Q5_0 and Q8_0 into
// int8. Where int4 has groups of more than 32 columns, all blocks of a group have the same scale and minimum.
bool pack_gguf(Matrix& matrix, int first, int rows, const std::string& type, const uint8_t* blocks, int cols);
// Codes of -1, 0 and 1 (rows, cols) and scales (rows, groups) into ternary or trits
bool pack_ternary(Matrix& matrix, int first, int rows, const int8_t* codes, const float* scales, int cols);
// A ternary matrix in either format
Matrix repacked(const Matrix& matrix, Format format);
// Bytes of a row of such blocks; 0 where there is no such row
size_t gguf_row_bytes(const std::string& type, int cols);
// The format that holds a GGUF type without loss, or that which comes next to it: int8 for all others
Format format_of(const std::string& type);
// Whether a type that is packed into int4 has a minimum beside the scale
bool has_minimum(const std::string& type);

// Calls body(row) for all rows, whole blocks on each of two threads, which write to different bytes.
template <class Body>
bool each_row(int first, int rows, const Body& body) {
    const auto some = [&](int begin, int end) {
        bool finite = true;
        for (int row = begin; row < end; row++) finite = body(row) && finite;
        return finite;
    };
    const int middle = padded(first + rows / 2, ROWS);
    if (rows < 8 * ROWS) return some(first, first + rows);
    bool upper = true;
    std::thread other([&] { upper = some(middle, first + rows); });
    const bool lower = some(first, middle);
    other.join();
    return lower && upper;
}

}  // namespace riyaz
