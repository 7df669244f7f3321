// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

namespace pion {

// The factor s in W <- W - lr s O, for O of shape (rows, cols) per block. What it makes
// of an orthogonal O, whose root mean square is 1 / sqrt(max(rows, cols)), is behind the
// arrow.
enum class Scale {
  kMatchRmsAdamW,  // "match_rms_adamw": 0.2 sqrt(max(rows, cols)) -> 0.2;
                   // arXiv:2502.16982
  kOriginal,       // "original": sqrt(max(1, rows / cols)); K. Jordan et al. 2024
  kSpectral,       // "spectral": sqrt(rows / cols); Scion, dion
  kOfficial,       // "official": scale_factor sqrt(max(rows, cols)) -> scale_factor, 2.0
                   // unless given, as in the authors' pion.py (0.2 and 5.0 in their other
                   // files)
  kUnitRms,  // "unit_rms": O is rescaled to root mean square scale_factor, 1.0 unless
             // given: s = scale_factor sqrt(rows cols) / (||O||_F + kUnitRmsFloor)
};
std::string_view scale_name(Scale scale);

// Keeps an empty update empty under kUnitRms: an O of norm 1e-4 still gets half the asked
// size, one of 1e-7 a thousandth. One whole direction has norm 1.
inline constexpr double kUnitRmsFloor = 1e-4;

// What a step does with a gradient that holds NaN or Inf.
enum class NonFinite {
  kSkip,   // "skip": leave weight and state as they are, count it
  kRaise,  // "raise": throw before anything is written
  kZero,   // "zero": non-finite entries count as 0
};

// Shared by every rule for matrices; matrix_step has the formula.
struct MatrixRule {
  double lr = 1e-3;           // >= 0; at 0 the weight stays as it is
  double momentum = 0.95;     // mu, in [0, 1)
  bool nesterov = false;      // direction mu M + (1 - mu) G in place of M
  double weight_decay = 0.0;  // decoupled: W <- (1 - lr weight_decay) W; >= 0
  Scale scale = Scale::kMatchRmsAdamW;
  std::optional<double> scale_factor;  // kOfficial, kUnitRms only; > 0
  NonFinite nonfinite = NonFinite::kSkip;
};

}  // namespace pion
