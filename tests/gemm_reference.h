// SPDX-License-Identifier: Apache-2.0
// The definition of dense products in double, and how far a product in T may be from it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/random_matrix.h"

namespace pion {

// Entries of alpha A B + beta C, and the same with absolute values everywhere, which is
// what rounding errors are relative to.
struct GemmReference {
  RandomMatrix<double> value, absolute;
};

inline RandomMatrix<double> absolute_values(RandomMatrix<double> x) {
  for (double& entry : x.data) entry = std::abs(entry);
  return x;
}

template <class T>
GemmReference gemm_reference(T alpha, const RandomMatrix<T>& a, const RandomMatrix<T>& b,
                             T beta, const RandomMatrix<T>& c) {
  const RandomMatrix<double> wide_a = converted<double>(a), wide_b = converted<double>(b);
  GemmReference result = {
      reference_product(wide_a, wide_b),
      reference_product(absolute_values(wide_a), absolute_values(wide_b))};
  for (std::size_t i = 0; i < result.value.data.size(); ++i) {
    result.value.data[i] =
        alpha * result.value.data[i] + beta * static_cast<double>(c.data[i]);
    result.absolute.data[i] =
        std::abs(alpha) * result.absolute.data[i] + std::abs(beta * double{c.data[i]});
  }
  return result;
}

// k products and sums, alpha, beta and their sum: k + 4 roundings at most on every path;
// the reference has as many in double, which doubles the bound when T is double.
template <class T>
double gemm_tolerance(std::int64_t k) {
  const double unit = std::numeric_limits<T>::epsilon() / 2;
  return static_cast<double>(k + 4) * unit * (std::is_same_v<T, double> ? 2 : 1);
}

template <class T>
void expect_close(const RandomMatrix<T>& actual, const GemmReference& expected,
                  std::int64_t k, const std::string& what) {
  ASSERT_EQ(actual.data.size(), expected.value.data.size());
  for (std::size_t i = 0; i < actual.data.size(); ++i) {
    ASSERT_NEAR(actual.data[i], expected.value.data[i],
                gemm_tolerance<T>(k) * expected.absolute.data[i])
        << what << ", entry " << i;
  }
}

// S + S^T of a random S.
template <class T>
RandomMatrix<T> symmetric_matrix(std::int64_t m, std::uint64_t seed) {
  const RandomMatrix<T> half = gaussian_matrix<T>(m, m, seed);
  RandomMatrix<T> result = half;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < m; ++j) result(i, j) = half(i, j) + half(j, i);
  }
  return result;
}

// `x` with `gap` more columns, all NaN: they would spread if they were read.
template <class T>
RandomMatrix<T> widened(const RandomMatrix<T>& x, std::int64_t gap) {
  RandomMatrix<T> wide = zero_matrix<T>(x.rows, x.cols + gap);
  for (T& entry : wide.data) entry = std::numeric_limits<T>::quiet_NaN();
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t j = 0; j < x.cols; ++j) wide(i, j) = x(i, j);
  }
  return wide;
}

// Scratch memory full of NaN.
template <class T>
std::vector<T> poisoned(std::size_t size) {
  return std::vector<T>(size, std::numeric_limits<T>::quiet_NaN());
}

}  // namespace pion
