// SPDX-License-Identifier: Apache-2.0
// Random matrices for the unit tests. The same seed gives the same numbers on every
// machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pion/matrix_view.h"
#include "tests/random_numbers.h"

namespace pion {

// A matrix that owns its numbers, contiguous.
template <class T>
struct RandomMatrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<T> data;  // (rows x cols)

  MatrixViewOf<T> view() { return {data.data(), rows, cols, cols}; }
  MatrixViewOf<const T> view() const { return {data.data(), rows, cols, cols}; }
  T& operator()(std::int64_t i, std::int64_t j) { return data[i * cols + j]; }
  const T& operator()(std::int64_t i, std::int64_t j) const { return data[i * cols + j]; }
};

template <class T>
RandomMatrix<T> zero_matrix(std::int64_t rows, std::int64_t cols) {
  return {rows, cols, std::vector<T>(static_cast<std::size_t>(rows * cols))};
}

template <class T = float>
RandomMatrix<T> gaussian_matrix(std::int64_t rows, std::int64_t cols,
                                std::uint64_t seed) {
  return {rows, cols, gaussian<T>(static_cast<std::size_t>(rows * cols), seed)};
}

// rows x cols with orthonormal columns (rows >= cols): Gram-Schmidt, twice, on normals.
inline RandomMatrix<double> orthonormal_columns(std::int64_t rows, std::int64_t cols,
                                                std::uint64_t seed) {
  RandomMatrix<double> q = gaussian_matrix<double>(rows, cols, seed);
  for (std::int64_t j = 0; j < cols; ++j) {
    for (std::int64_t before = 0; before < 2 * j; ++before) {
      const std::int64_t k = before % j;
      double overlap = 0.0;
      for (std::int64_t i = 0; i < rows; ++i) overlap += q(i, k) * q(i, j);
      for (std::int64_t i = 0; i < rows; ++i) q(i, j) -= overlap * q(i, k);
    }
    double square = 0.0;
    for (std::int64_t i = 0; i < rows; ++i) square += q(i, j) * q(i, j);
    for (std::int64_t i = 0; i < rows; ++i) q(i, j) /= std::sqrt(square);
  }
  return q;
}

// U diag(values) V^T.
struct SingularDecomposition {
  RandomMatrix<double> u, v;   // orthonormal columns, as many as values
  std::vector<double> values;  // any order

  // U diag(f(values)) V^T.
  template <class F>
  RandomMatrix<double> mapped(F f) const {
    RandomMatrix<double> x = zero_matrix<double>(u.rows, v.rows);
    for (std::size_t k = 0; k < values.size(); ++k) {
      const double s = f(values[k]);
      const auto column = static_cast<std::int64_t>(k);
      for (std::int64_t i = 0; i < u.rows; ++i) {
        for (std::int64_t j = 0; j < v.rows; ++j)
          x(i, j) += u(i, column) * s * v(j, column);
      }
    }
    return x;
  }
  RandomMatrix<double> matrix() const {
    return mapped([](double s) { return s; });
  }
};

// Random singular vectors for prescribed singular values, min(rows, cols) of them at
// most.
inline SingularDecomposition with_spectrum(std::int64_t rows, std::int64_t cols,
                                           std::vector<double> values,
                                           std::uint64_t seed) {
  const auto rank = static_cast<std::int64_t>(values.size());
  return {orthonormal_columns(rows, rank, 2 * seed),
          orthonormal_columns(cols, rank, 2 * seed + 1), std::move(values)};
}

template <class To, class From>
RandomMatrix<To> converted(const RandomMatrix<From>& x) {
  RandomMatrix<To> result = zero_matrix<To>(x.rows, x.cols);
  std::transform(x.data.begin(), x.data.end(), result.data.begin(),
                 [](const From& value) { return static_cast<To>(value); });
  return result;
}

template <class T>
RandomMatrix<T> transposed(const RandomMatrix<T>& x) {
  RandomMatrix<T> result = zero_matrix<T>(x.cols, x.rows);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t j = 0; j < x.cols; ++j) result(j, i) = x(i, j);
  }
  return result;
}

// y += factor x. Sanitizers would check every number, for most of the time that tests of
// products take.
template <class T>
__attribute__((no_sanitize("address", "undefined"))) void add_multiple(T factor,
                                                                       const T* x,
                                                                       std::int64_t n,
                                                                       T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

// The definition of the product, in double.
inline RandomMatrix<double> reference_product(const RandomMatrix<double>& a,
                                              const RandomMatrix<double>& b) {
  RandomMatrix<double> result = zero_matrix<double>(a.rows, b.cols);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t k = 0; k < a.cols && b.cols > 0; ++k)
      add_multiple(a(i, k), &b(k, 0), b.cols, &result(i, 0));
  }
  return result;
}

// sqrt(sum (x - y)^2), in double.
template <class A, class B>
double frobenius_distance(const RandomMatrix<A>& x, const RandomMatrix<B>& y) {
  double square = 0.0;
  for (std::size_t i = 0; i < x.data.size(); ++i) {
    const double gap = static_cast<double>(x.data[i]) - static_cast<double>(y.data[i]);
    square += gap * gap;
  }
  return std::sqrt(square);
}

}  // namespace pion
