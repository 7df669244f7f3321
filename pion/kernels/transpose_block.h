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
typedef float Octet __attribute__((vector_size(32)));

inline Quad load_quad(const float* from) {
  Quad v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// 4 rows, 4 columns.
inline void transpose_four(const float* from, std::size_t stride, float* to,
                           std::size_t to_stride) {
  const Quad a = load_quad(from), b = load_quad(from + stride),
             c = load_quad(from + 2 * stride), d = load_quad(from + 3 * stride);
  const Quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
             ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
             cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
             cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Quad columns[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                           __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                           __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                           __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
#pragma GCC unroll 4
  for (std::size_t q = 0; q < 4; ++q) {
    __builtin_memcpy(to + q * to_stride, &columns[q], sizeof(Quad));
  }
}

#if PION_LANES >= 8
// Rows r and r + 4 side by side.
inline Octet load_pair(const float* from, std::size_t stride) {
  return __builtin_shufflevector(load_quad(from), load_quad(from + 4 * stride), 0, 1, 2,
                                 3, 4, 5, 6, 7);
}

// 8 rows, 4 columns. 256 bits also with AVX-512, where transposing 512 bits takes longer:
// these shuffles run on two ports, those on one.
inline void transpose_eight(const float* from, std::size_t stride, float* to,
                            std::size_t to_stride) {
  const Octet a = load_pair(from, stride), b = load_pair(from + stride, stride),
              c = load_pair(from + 2 * stride, stride),
              d = load_pair(from + 3 * stride, stride);
  const Octet ab_low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13),
              ab_high = __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15),
              cd_low = __builtin_shufflevector(c, d, 0, 8, 1, 9, 4, 12, 5, 13),
              cd_high = __builtin_shufflevector(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
  const Octet columns[4] = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 8, 9, 4, 5, 12, 13),
      __builtin_shufflevector(ab_low, cd_low, 2, 3, 10, 11, 6, 7, 14, 15),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 8, 9, 4, 5, 12, 13),
      __builtin_shufflevector(ab_high, cd_high, 2, 3, 10, 11, 6, 7, 14, 15)};
#pragma GCC unroll 4
  for (std::size_t q = 0; q < 4; ++q) {
    __builtin_memcpy(to + q * to_stride, &columns[q], sizeof(Octet));
  }
}
#endif

// 8 rows, 8 columns.
inline void transpose_square(const float* from, std::size_t stride, float* to,
                             std::size_t to_stride) {
#pragma GCC unroll 2
  for (std::size_t c = 0; c < 8; c += 4) {
#if PION_LANES >= 8
    transpose_eight(from + c, stride, to + c * to_stride, to_stride);
#else
    transpose_four(from + c, stride, to + c * to_stride, to_stride);
    transpose_four(from + 4 * stride + c, stride, to + c * to_stride + 4, to_stride);
#endif
  }
}
inline void transpose_square(const double* from, std::size_t stride, double* to,
                             std::size_t to_stride) {
  transpose_entries(from, stride, 8, 8, to, to_stride);
}

// The same as transpose_entries, for any size. The blocks must not overlap.
inline void transpose(const double* from, std::size_t from_stride, std::size_t rows,
                      std::size_t cols, double* to, std::size_t to_stride) {
  constexpr std::size_t kSide = 8;  // a cache line
  for (std::size_t c = 0; c < cols; c += kSide) {
    transpose_entries(from + c, from_stride, rows, cols - c < kSide ? cols - c : kSide,
                      to + c * to_stride, to_stride);
  }
}
// All rows of 4 columns first: writes side by side are 1.5 times as fast as reads.
inline void transpose(const float* from, std::size_t from_stride, std::size_t rows,
                      std::size_t cols, float* to, std::size_t to_stride) {
  std::size_t c = 0;
  for (; c + 4 <= cols; c += 4) {
    std::size_t r = 0;
#if PION_LANES >= 8
    for (; r + 8 <= rows; r += 8) {
      transpose_eight(from + r * from_stride + c, from_stride, to + c * to_stride + r,
                      to_stride);
    }
#endif
    for (; r + 4 <= rows; r += 4) {
      transpose_four(from + r * from_stride + c, from_stride, to + c * to_stride + r,
                     to_stride);
    }
    transpose_entries(from + r * from_stride + c, from_stride, rows - r, 4,
                      to + c * to_stride + r, to_stride);
  }
  transpose_entries(from + c, from_stride, rows, cols - c, to + c * to_stride, to_stride);
}

}  // namespace

}  // namespace pion::PION_TARGET
