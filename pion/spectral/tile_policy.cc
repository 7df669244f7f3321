// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/tile_policy.h"

#include <algorithm>
#include <cmath>

namespace pion {
namespace {

// Largest product of linear coefficients that a prefix of the first `steps` has: by how
// much Q magnifies the weakest directions, and the rounding of the strongest into them.
double growth(const QuinticSequence& sequence, std::size_t steps) {
  double product = 1.0, largest = 1.0;
  for (std::size_t k = 0; k < steps; ++k) {
    product *= std::abs(sequence[k].a);
    largest = std::max(largest, product);
  }
  return largest;
}

// What is good enough, so that Precision::kFast is no further off than direct bf16 code
// (docs/kernels.md). Two promotions grow 1.875^2 = 3.52, three 6.6, four 12.4, three
// steps of Muon 40.9.
constexpr double kSingleGrowth = 4.2;        // single products
constexpr double kMostlySingleGrowth = 7.5;  // single ones but in the last two steps
constexpr double kSingleQGrowth = 13;        // split ones, but Q X; f32 without a new X
constexpr double kRestartGrowth = 42;        // as kMostlySingleGrowth, with a new X; f32

// Short sums average less of their rounding: below so many rows the third and later steps
// are split where single products would do, and below so many everything is, which costs
// microseconds there.
constexpr std::int64_t kLeastSingle = 128, kLeastFast = 48;

// Steps of a direct iteration that keep X in f32, where it magnifies much: the errors of
// later ones are magnified no more than 42 times in Muon's five.
constexpr std::size_t kWideSteps = 2;

// Products of split tiles, whose error is 2^-17, may grow by the square of it before the
// last step: to 0.3. Beyond, small eigenvalues of A turn negative and diverge. Muon's
// classic sequence has 141 with 5 steps and 485 with 6, "polar_express" 443, "cans" 471.
constexpr double kTileGrowth = 200;

// Blocks that start again: smaller ones gain no time, long ones lose it to the second
// Gram matrix.
constexpr std::int64_t kLeastRestart = 225, kLongestRestart = 16;

}  // namespace

bool iterates_directly(std::int64_t rows, std::int64_t cols) {
  return 2 * std::max(rows, cols) < 3 * std::min(rows, cols);
}

bool fits_tiles(const QuinticSequence& sequence) {
  return sequence.empty() || growth(sequence, sequence.size() - 1) <= kTileGrowth;
}

TilePolicy::TilePolicy(const SpectralMap& map, std::int64_t rows, std::int64_t cols)
    : direct(iterates_directly(rows, cols)),
      steps(map.sequence.size()),
      restart(steps),
      split_from(0),
      rest_of_last(true),
      round_x_from(steps) {
  const double grown = growth(map.sequence, steps);
  const std::int64_t m = std::min(rows, cols), n = std::max(rows, cols);
  const bool fast = map.precision == Precision::kFast && m >= kLeastFast;
  const std::size_t last_two = steps - std::min<std::size_t>(steps, 2);
  if (direct) {
    split_from = fast ? steps : 0;
    // P's own rounding, and X's, matter only where the map magnifies much
    rest_of_last = !fast && grown > kSingleQGrowth;
    if (fast && grown > kSingleQGrowth) round_x_from = kWideSteps;
    return;
  }
  if (!fast) return;
  if (grown <= kSingleGrowth) {
    split_from = m < kLeastSingle ? std::min<std::size_t>(steps, 2) : steps;
    rest_of_last = false;
  } else if (grown <= kMostlySingleGrowth) {
    split_from = last_two;
    rest_of_last = false;
  } else if (grown <= kSingleQGrowth) {
    rest_of_last = false;
  } else if (last_two > 0 && growth(map.sequence, last_two) <= kRestartGrowth &&
             m >= kLeastRestart && n <= kLongestRestart * m) {
    restart = split_from = last_two;
    rest_of_last = false;
  }
}

TilePolicy f32_policy(const SpectralMap& map, std::int64_t rows, std::int64_t cols) {
  TilePolicy policy;
  policy.steps = policy.restart = policy.split_from = policy.round_x_from =
      map.sequence.size();
  policy.direct = iterates_directly(rows, cols);
  if (policy.direct || map.precision != Precision::kF32) return policy;
  if (growth(map.sequence, policy.steps) <= kSingleQGrowth) return policy;
  const std::size_t last_two = policy.steps - std::min<std::size_t>(policy.steps, 2);
  if (last_two > 0 && growth(map.sequence, last_two) <= kRestartGrowth) {
    policy.restart = last_two;
  } else {
    policy.direct = true;
  }
  return policy;
}

TileWork tile_work(const TilePolicy& policy, std::int64_t rows, std::int64_t cols) {
  const auto m = static_cast<double>(std::min(rows, cols)),
             n = static_cast<double>(std::max(rows, cols));
  const double gram = m * m * n, half = m * m * m, wide = 2 * m * m * n;
  const double last = policy.rest_of_last ? 2 * wide : wide;
  TileWork work{.load = gram, .apply = 0, .update = policy.direct ? 0 : last};
  for (std::size_t k = 0; k < policy.steps; ++k) {
    const double product = policy.single(k) ? half : 3 * half;
    if (policy.direct) {
      work.apply += (k > 0 ? gram : 0) + product + last;
      continue;
    }
    const bool begins = k == 0 || k == policy.restart;
    const bool ends = k + 1 == policy.steps || k + 1 == policy.restart;
    if (begins && k > 0) work.apply += wide + gram;
    work.apply += product * ((begins ? 1 : 2) + (ends ? 0 : 2));
  }
  return work;
}

}  // namespace pion
