// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/largest_eigenvalue.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/random_matrix.h"

namespace pion {
namespace {

// Q diag(values) Q^T, symmetric to the bit.
RandomMatrix<double> symmetric(std::int64_t m, const std::vector<double>& values,
                               std::uint64_t seed) {
  const RandomMatrix<double> q =
      orthonormal_columns(m, static_cast<std::int64_t>(values.size()), seed);
  RandomMatrix<double> a = zero_matrix<double>(m, m);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      for (std::size_t k = 0; k < values.size(); ++k) {
        a(i, j) += q(i, static_cast<std::int64_t>(k)) * values[k] *
                   q(j, static_cast<std::int64_t>(k));
      }
      a(j, i) = a(i, j);
    }
  }
  return a;
}

double found(const RandomMatrix<double>& a, int most_steps) {
  LanczosScratch scratch;
  return largest_eigenvalue<double>(a.view(), most_steps, scratch);
}

TEST(LargestEigenvalue, IsExactWhenAllStepsAreAllowed) {
  const std::vector<std::vector<double>> spectra = {
      {3.0}, {2.0, 2.0}, {1.0, 1.0 - 1e-9, 0.5}, {1.0, 0.999, 0.998, 0.997, 1e-8}};
  for (const std::int64_t m : {5, 6, 20, 64}) {
    for (const std::vector<double>& values : spectra) {
      // construction of A and Lanczos: m-term sums, each u lambda_1
      const double tolerance = 4 * static_cast<double>(m) * 0x1p-53 * values[0];
      EXPECT_NEAR(found(symmetric(m, values, 31), 64), values[0], tolerance)
          << "m = " << m;
    }
  }
  const RandomMatrix<double> one = {1, 1, {0.25}};
  EXPECT_DOUBLE_EQ(found(one, 64), 0.25);
  EXPECT_EQ(found(zero_matrix<double>(4, 4), 64), 0.0);
  EXPECT_EQ(found(zero_matrix<double>(0, 0), 64), 0.0);
}

TEST(LargestEigenvalue, IsNeverTooLargeAndWithinOnePercentOfSigmaWhenStepsRunOut) {
  for (const int steps : {32, 64}) {
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      std::vector<double> values;
      for (int i = 0; i < 150; ++i) values.push_back(1.0 - i / 150.0);  // no gap anywhere
      const double eigenvalue = found(symmetric(150, values, seed), steps);
      EXPECT_LE(eigenvalue, 1.0 + 600 * 0x1p-53);
      EXPECT_GE(eigenvalue, 0.98) << steps << " steps, seed " << seed;
    }
  }
}

TEST(LargestEigenvalue, IsCloseForWhiteNoise) {
  // a Gram matrix of normals, where neighbours crowd at the edge; judge: power iteration,
  // which is a lower bound too, with so many steps that it has converged to 1e-6
  const RandomMatrix<double> x = gaussian_matrix<double>(120, 200, 33);
  const RandomMatrix<double> a = reference_product(x, transposed(x));
  RandomMatrix<double> v = gaussian_matrix<double>(120, 1, 34);
  double quotient = 0.0;
  for (int i = 0; i < 3000; ++i) {
    v = reference_product(a, v);
    double square = 0.0;
    for (const double value : v.data) square += value * value;
    quotient = std::sqrt(square);
    for (double& value : v.data) value /= quotient;
  }
  EXPECT_NEAR(found(a, 32), quotient, 0.02 * quotient);
  EXPECT_NEAR(found(a, 64), quotient, 1e-4 * quotient);
}

TEST(LargestEigenvalue, IsTheSameInFloatUpToRounding) {
  const RandomMatrix<double> a = symmetric(40, {1.0, 0.9, 0.3}, 35);
  LanczosScratch scratch;
  const RandomMatrix<float> rounded = converted<float>(a);
  // Weyl: no eigenvalue moves by more than the norm of the rounding
  EXPECT_NEAR(largest_eigenvalue<float>(rounded.view(), 64, scratch), 1.0,
              frobenius_distance(rounded, a) + 1e-14);
}

}  // namespace
}  // namespace pion
