// SPDX-License-Identifier: Apache-2.0
// How f32 maps keep clear of under- and overflow, and how often norms look again.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace pion {

// Lanczos steps for sigma_1; the odds of an error are in largest_eigenvalue.h.
template <class A>
inline constexpr int kNormSteps = std::is_same_v<A, double> ? 256 : 64;
inline constexpr int kStatisticsSteps = 32;

// Entries scaled for f32 may be off from 1 by this much: squares of the ones that count
// stay normal floats, and sums of 2^26 of them finite.
inline constexpr double kSmallestMagnitude = 0x1p-30, kLargestMagnitude = 0x1p40;

// 2^k that brings `magnitude` into [1/2, 1), as far as floats can hold it; 1 if it is no
// positive number.
inline double power_of_two_for(double magnitude) {
  if (!(magnitude > 0.0) || !std::isfinite(magnitude)) return 1.0;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -126, 126));
}

// How X came into f32.
struct ScaledLoad {
  bool finite, zero;
  double scale;  // X = scale D; a power of two
};

// pass(scale, first) takes X = scale D from memory and returns the bits of the largest
// |D|. It is called a second time, with first = false, if the guess of |D| was too far
// off.
template <class Pass>
ScaledLoad load_scaled(double magnitude, Pass pass) {
  constexpr std::uint32_t kInfinity = 0x7f800000;
  double scale = power_of_two_for(magnitude);
  const std::uint32_t largest = pass(static_cast<float>(scale), true);
  if (largest >= kInfinity || largest == 0) return {largest == 0, largest == 0, scale};
  const double reached = static_cast<double>(std::bit_cast<float>(largest));
  if (reached * scale < kSmallestMagnitude || reached * scale > kLargestMagnitude) {
    scale = power_of_two_for(reached);
    pass(static_cast<float>(scale), false);
  }
  return {true, false, scale};
}

}  // namespace pion
