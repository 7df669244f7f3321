// SPDX-License-Identifier: Apache-2.0
// Transposed copies of blocks, for the kernels of every CPU target.
#pragma once

#include <cstddef>

#include "pion/kernels/lanes.h"

namespace pion::PION_TARGET {

namespace {

// to[c * to_stride + r] = from[r * from_stride + c] for r < rows, c < cols.
template <class T>
void transpose_entries(const T* from, std::size_t from_stride, std::size_t rows,
                       std::size_t cols, T* to, std::size_t to_stride) {
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      to[c * to_stride + r] = from[r * from_stride + c];
    }
  }
}

typedef float Quad __attribute__((vector_size(16)));
#if PION_LANES == 4
// Rows of a block of 4 columns: row r in 4 lanes.
typedef Quad RowsOfFour;
constexpr std::size_t kRowsOfFour = 4;
inline RowsOfFour load_rows(const float* from, std::size_t) {
  Quad v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
#define PION_LANES_OF(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
// Rows r and r + 4 side by side; 256 bits also with AVX-512, where transposing 512 bits
// takes longer: these shuffles run on two ports, those on one.
typedef float RowsOfFour __attribute__((vector_size(32)));
constexpr std::size_t kRowsOfFour = 8;
inline RowsOfFour load_rows(const float* from, std::size_t stride) {
  Quad low, high;
  __builtin_memcpy(&low, from, sizeof low);
  __builtin_memcpy(&high, from + 4 * stride, sizeof high);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}
// i to l from {a, b} of four lanes each, in both halves.
#define PION_LANES_OF(a, b, i, j, k, l)                                              \
  __builtin_shufflevector(a, b, i + (i / 4) * 4, j + (j / 4) * 4, k + (k / 4) * 4,   \
                          l + (l / 4) * 4, i + (i / 4) * 4 + 4, j + (j / 4) * 4 + 4, \
                          k + (k / 4) * 4 + 4, l + (l / 4) * 4 + 4)
#endif

inline void store_rows(float* to, RowsOfFour v) { __builtin_memcpy(to, &v, sizeof v); }

// kRowsOfFour rows, 4 columns.
[[gnu::always_inline]] inline void transpose_four(const float* from, std::size_t stride,
                                                  float* to, std::size_t to_stride) {
  const RowsOfFour a = load_rows(from, stride), b = load_rows(from + stride, stride),
                   c = load_rows(from + 2 * stride, stride),
                   d = load_rows(from + 3 * stride, stride);
  const RowsOfFour ab_low = PION_LANES_OF(a, b, 0, 4, 1, 5),
                   ab_high = PION_LANES_OF(a, b, 2, 6, 3, 7),
                   cd_low = PION_LANES_OF(c, d, 0, 4, 1, 5),
                   cd_high = PION_LANES_OF(c, d, 2, 6, 3, 7);
  store_rows(to, PION_LANES_OF(ab_low, cd_low, 0, 1, 4, 5));
  store_rows(to + to_stride, PION_LANES_OF(ab_low, cd_low, 2, 3, 6, 7));
  store_rows(to + 2 * to_stride, PION_LANES_OF(ab_high, cd_high, 0, 1, 4, 5));
  store_rows(to + 3 * to_stride, PION_LANES_OF(ab_high, cd_high, 2, 3, 6, 7));
}
#undef PION_LANES_OF

// The same as transpose_entries, for any size. The blocks must not overlap.
inline void transpose(const double* from, std::size_t from_stride, std::size_t rows,
                      std::size_t cols, double* to, std::size_t to_stride) {
  constexpr std::size_t kSide = 8;  // a cache line
  for (std::size_t c = 0; c < cols; c += kSide) {
    transpose_entries(from + c, from_stride, rows, cols - c < kSide ? cols - c : kSide,
                      to + c * to_stride, to_stride);
  }
}
inline void transpose(const float* from, std::size_t from_stride, std::size_t rows,
                      std::size_t cols, float* to, std::size_t to_stride) {
  std::size_t r = 0;
  for (; r + kRowsOfFour <= rows; r += kRowsOfFour) {
    const float* block = from + r * from_stride;
    std::size_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      transpose_four(block + c, from_stride, to + c * to_stride + r, to_stride);
    }
    transpose_entries(block + c, from_stride, kRowsOfFour, cols - c,
                      to + c * to_stride + r, to_stride);
  }
  transpose_entries(from + r * from_stride, from_stride, rows - r, cols, to + r,
                    to_stride);
}

}  // namespace

}  // namespace pion::PION_TARGET
