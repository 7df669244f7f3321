// SPDX-License-Identifier: Apache-2.0
// Entries of a matrix on their way into the arithmetic of a map and out again.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "pion/matrix_view.h"

namespace pion {

// What the iteration computes in.
template <class T>
using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Largest |entry|; NaN or inf if there is a non-finite one. Compares the bits of the
// absolute values, whose order is that of the values with inf and NaN on top: integers
// vectorize.
template <class T>
double largest_entry(MatrixViewOf<const T> x) {
  using A = Arithmetic<T>;
  using Bits = std::conditional_t<sizeof(A) == 8, std::int64_t, std::int32_t>;
  Bits largest = 0;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const T* row = x.row(i);
    for (std::int64_t j = 0; j < x.cols; ++j) {
      const Bits bits =
          std::bit_cast<Bits>(static_cast<A>(row[j])) & std::numeric_limits<Bits>::max();
      largest = bits > largest ? bits : largest;
    }
  }
  return static_cast<double>(std::bit_cast<A>(largest));
}

// The power of two that brings `largest` into [1/2, 1), as far as a double can hold it.
inline double power_of_two_scale(double largest) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -1022, 1022));
}

// to(i, j) = scale * from(i, j), or from(j, i) if the shape of `to` is that of the
// transpose. Square tiles, so that both sides stay in L1.
template <class From, class To>
void copy(MatrixViewOf<const From> from, double scale, bool transposed,
          MatrixViewOf<To> to) {
  const auto convert = [scale](From value) {
    const auto wide = static_cast<double>(static_cast<Arithmetic<From>>(value));
    return static_cast<To>(static_cast<Arithmetic<To>>(wide * scale));
  };
  if (!transposed) {
    for (std::int64_t i = 0; i < from.rows; ++i) {
      for (std::int64_t j = 0; j < from.cols; ++j) to(i, j) = convert(from(i, j));
    }
    return;
  }
  constexpr std::int64_t kTile = 32;
  for (std::int64_t i0 = 0; i0 < from.rows; i0 += kTile) {
    for (std::int64_t j0 = 0; j0 < from.cols; j0 += kTile) {
      const std::int64_t i1 = std::min(i0 + kTile, from.rows);
      const std::int64_t j1 = std::min(j0 + kTile, from.cols);
      for (std::int64_t i = i0; i < i1; ++i) {
        for (std::int64_t j = j0; j < j1; ++j) to(j, i) = convert(from(i, j));
      }
    }
  }
}

}  // namespace pion
