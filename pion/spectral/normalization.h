// SPDX-License-Identifier: Apache-2.0
// How often the norms of spectral maps look again.
#pragma once

#include <type_traits>

namespace pion {

// Lanczos steps for sigma_1; the odds of an error are in largest_eigenvalue.h.
template <class A>
inline constexpr int kNormSteps = std::is_same_v<A, double> ? 256 : 64;
inline constexpr int kStatisticsSteps = 32;

}  // namespace pion
