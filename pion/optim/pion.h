// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "pion/optim/matrix_rule.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// The strength of Pion's filter, relative to the chosen norm. It never exceeds 0.8165
// (kLargestCutoff), the fixed point of the suppression step.
struct Cutoff {
  enum class Kind {
    kAutomatic,  // "auto": min(0.3, 2 (1/sqrt m + 1/sqrt n)) for the block's shape m x n,
                 // but no less than `steps` can reach
    kNoiseEdge,  // "noise_edge": edge_factor (1/sqrt m + 1/sqrt n); an error in the step
                 // where `steps` cannot reach it
    kValue,      // a number in [smallest_cutoff(steps), 0.81649]
  };
  Kind kind = Kind::kAutomatic;
  double value = 0.0;  // kValue only

  friend bool operator==(const Cutoff&, const Cutoff&) = default;
};

// Pion: a high-pass filter on the singular values of the momentum.
// Source: arXiv:2605.19282 and its authors' pion.py.
//
//   M <- mu M + (1 - mu) G
//   D = nesterov ? mu M + (1 - mu) G : M
//   O = U f(S / norm(D)) V^T  for D = U S V^T
//   W <- (1 - lr weight_decay) W - lr s O         s: see Scale
//
// f is promotions s <- 1.875 s - 1.25 s^3 + 0.375 s^5, then suppressions
// s <- 2.5 s^3 - 1.5 s^5: high_pass_sequence(), or cutoff_sequence() for a cutoff.
//
// Differs from the source: the filter is set by `cutoff` (what lies above it goes to 1,
// what lies below to 0) unless promotion_steps asks for the published map, whose default,
// 0, passes at most one direction and usually none; the scale is Moonlight's;
// precision is a choice (Precision), where the source has bf16 throughout.
struct PionRule : MatrixRule {
  Cutoff cutoff;
  double edge_factor = 2.0;            // for "noise_edge"; > 0
  std::optional<int> promotion_steps;  // the published map, not a cutoff; in [0, steps]
  int steps = 5;                       // promotions and suppressions together, in [1, 64]
  Normalization normalization = Normalization::kFrobenius;
  Precision precision = Precision::kFast;  // of f32 steps; f64 ones are exact
};

}  // namespace pion
