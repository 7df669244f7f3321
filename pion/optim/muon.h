// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "pion/optim/matrix_rule.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// Muon: momentum, then a nearly orthogonal direction: every singular value to about 1.
// Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks",
// 2024, kellerjordan.github.io/posts/muon.
//
//   M <- mu M + (1 - mu) G
//   D = nesterov ? mu M + (1 - mu) G : M
//   O = orthogonalize(D / ||D||_F)            Newton-Schulz, see muon_sequence
//   W <- (1 - lr weight_decay) W - lr s O     s: see Scale; the source's own is kOriginal
//
// Differs from the source: precision is a choice (Precision), where the source has bf16
// throughout, and the scale is Moonlight's unless told otherwise.
struct MuonRule : MatrixRule {
  MuonRule() { nesterov = true; }
  std::string coefficients = "classic";  // see muon_sequence
  int steps = 5;                         // in [1, 64]
  Normalization normalization = Normalization::kFrobenius;
  Precision precision = Precision::kFast;  // of f32 steps; f64 ones are exact
};

// Low-rank Muon: the `rank` largest singular values of D to 1, the rest to 0 (exact SVD):
// what Pion's filter approximates. Source: the baseline of arXiv:2605.19282.
struct LowRankMuonRule : MatrixRule {
  std::int64_t rank = 128;  // > 0; min(rows, cols) of a block at most is used
};

// Low-pass Muon, the opposite of Pion (exact SVD): singular values of D below cutoff
// ||D||_F to 1, the rest to 0. Our own stand-in for the ablation of arXiv:2605.19282,
// whose coefficients are not public.
struct LowPassMuonRule : MatrixRule {
  double cutoff = 0.3;  // in (0, 1]
};

}  // namespace pion
