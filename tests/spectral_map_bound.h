// SPDX-License-Identifier: Apache-2.0
// The definition of a polynomial spectral map in double and how far rounding may take an
// implementation from it. For unit tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "pion/spectral/spectral_map.h"
#include "tests/random_matrix.h"

namespace pion {

inline constexpr double kUnitRoundoff64 = 0x1p-53;
inline constexpr double kUnitRoundoff32 = 0x1p-24;
inline constexpr double kUnitRoundoff16 = 0x1p-8;  // bfloat16: 8 bits of significand

// Frobenius norm of the error that the direct iteration in arithmetic with unit roundoff
// u may have, for an input with the given singular values.
//
// An error E of the k-th iterate reaches the end multiplied by the Lipschitz constants of
// the later steps on [0, s], s the largest singular value then: for an odd p, X -> U p(S)
// V^T is Lipschitz in the Frobenius norm with max |p'|. Step k itself adds, with F =
// ||X||_F, n-term sums whose roundings are independent (standard deviation u ||x_i||
// ||x_j|| of a Gram entry, so u F^2 for the matrix; 4 standard deviations are taken):
//
//   4 u (|a| F + |b| (F^2 s + 2 s^2 F) + |c| (3 F^2 s^3 + 3 s^4 F))
//
// from A = X X^T, A^2, b A + c A^2, their product with X and the sum. The start has 4 u F
// from the entries and the norm, and 4 u F (F / s)^2 more from sigma_1 of the rounded
// Gram matrix.
inline double rounding_bound(const SpectralMap& map, std::vector<double> values,
                             double u) {
  const auto norm = [&] {
    double square = 0.0;
    for (const double s : values) square += s * s;
    return std::sqrt(square);
  };
  const auto largest = [&] { return *std::max_element(values.begin(), values.end()); };
  const bool spectral = map.normalization == Normalization::kSpectral;
  const double divisor = map.norm_margin * (spectral ? largest() : norm());
  if (divisor == 0.0) return 0.0;
  for (double& s : values) s /= divisor;

  double error =
      4 * u * norm() * (1.0 + (spectral ? std::pow(norm() / largest(), 2) : 0.0));
  for (const Quintic& p : map.sequence) {
    const double f = norm(), s = largest();
    double lipschitz = 0.0;
    for (int i = 0; i <= 1000; ++i) {
      const double x = s * i / 1000, square = x * x;
      lipschitz =
          std::max(lipschitz, std::abs(p.a + square * (3 * p.b + 5 * p.c * square)));
    }
    error *= lipschitz;
    error += 4 * u *
             (std::abs(p.a) * f + std::abs(p.b) * (f * f * s + 2 * s * s * f) +
              std::abs(p.c) * (3 * f * f * s * s * s + 3 * s * s * s * s * f));
    for (double& value : values) value = p(value);
  }
  // what is below the range of the type becomes zero, 1.2e-38 in each of up to 6000
  // entries
  const double flushed = u > 0x1p-30 ? 1e-36 : 1e-305;
  return error + 2 * u * norm() + flushed;
}

// One matrix through apply_spectral_map.
template <class T>
RandomMatrix<T> applied(const SpectralMap& map, const RandomMatrix<T>& input,
                        SpectralWorkspace& workspace,
                        SpectrumStatistics* statistics = nullptr) {
  RandomMatrix<T> output = zero_matrix<T>(input.rows, input.cols);
  const MatrixViewOf<const T> from = input.view();
  const MatrixViewOf<T> to = output.view();
  const std::span<SpectrumStatistics> wanted =
      statistics == nullptr ? std::span<SpectrumStatistics>() : std::span(statistics, 1);
  if (!apply_spectral_map<T>(map, {&from, 1}, {&to, 1}, workspace, wanted)) {
    return {0, 0, {}};  // refused: differs from every expectation
  }
  return output;
}

}  // namespace pion
