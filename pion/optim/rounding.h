// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "pion/bfloat16.h"

namespace pion {

// How a bf16 weight takes steps that are smaller than its rounding. Momentum is f32
// always.
enum class LowPrecision {
  kMasterCopy,  // an f32 copy is stepped and rounded into the weight; 4 bytes more an
                // entry
  kStochastic,  // the f32 result is rounded up or down at random; no state
  kNearest,     // plain rounding: steps under about 1/512 of an entry are lost
};

// bf16 weights. Either an f32 master copy is stepped and rounded into the weight, or the
// f32 result of a step on the widened weight is rounded stochastically with a
// counter-based generator (seed, index): no state, same result for every thread count.
// Take another seed for every step and parameter. Both throw std::invalid_argument if
// sizes differ.
void round_to_nearest(std::span<const float> from, std::span<bfloat16> to);
// `first` is the index of from[0] in the whole parameter, so that it may be rounded in
// pieces.
void round_stochastically(std::span<const float> from, std::span<bfloat16> to,
                          std::uint64_t seed, std::uint64_t first = 0);

// Where the counter of round_stochastically begins: the random bits of entry i are the
// upper 16 of mix(start + i 0x9e3779b97f4a7c15), for front ends that compute them
// elsewhere.
std::uint64_t rounding_start(std::uint64_t seed);

// Independent seeds for every parameter and step of an optimizer, so that all front ends
// round alike.
std::uint64_t rounding_seed(std::uint64_t seed, std::uint64_t parameter,
                            std::uint64_t step);

}  // namespace pion
