// SPDX-License-Identifier: Apache-2.0
// How every rule meets its gradient: one pass that measures it and looks for NaN and Inf.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "pion/bfloat16.h"
#include "pion/matrix_view.h"
#include "pion/optim/matrix_rule.h"

namespace pion {

// An entry in the type that the step computes in.
template <class T, class G>
T gradient_entry(G value) {
  if constexpr (std::is_same_v<G, bfloat16>) {
    return static_cast<T>(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

// The same under NonFinite::kZero.
template <class T, class G>
T finite_or_zero(G value) {
  const T entry = gradient_entry<T>(value);
  return std::isfinite(entry) ? entry : T{0};
}

struct GradientScan {
  bool skip = false;  // NonFinite::kSkip and an entry is not finite
  bool clean = true;  // every entry is finite
  double norm = 0;    // ||G||_F of the finite entries; 0 if skip
};

// Throws under NonFinite::kRaise if an entry is not finite.
template <class T, class G>
GradientScan scan_gradient(MatrixViewOf<const G> gradient, NonFinite policy,
                           const char* where) {
  GradientScan scan;
  double squares = 0;
  for (std::int64_t i = 0; i < gradient.rows; ++i) {
    const G* row = gradient.row(i);
    for (std::int64_t j = 0; j < gradient.cols; ++j) {
      const T entry = gradient_entry<T>(row[j]);
      if (std::isfinite(entry)) {
        squares += static_cast<double>(entry) * static_cast<double>(entry);
        continue;
      }
      scan.clean = false;
      if (policy == NonFinite::kRaise) {
        throw std::invalid_argument(
            std::string(where) + ": the gradient must be finite, got " +
            std::to_string(entry) + " at (" + std::to_string(i) + ", " +
            std::to_string(j) +
            "); nonfinite = \"skip\" leaves such a parameter as it is");
      }
      if (policy == NonFinite::kSkip) return {.skip = true, .clean = false};
    }
  }
  scan.norm = std::sqrt(squares);
  return scan;
}

}  // namespace pion
