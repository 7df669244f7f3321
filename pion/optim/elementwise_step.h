// SPDX-License-Identifier: Apache-2.0
// What the element-wise rules share: sizes, the scan, the decay, the size of the update.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "pion/optim/gradient_scan.h"
#include "pion/optim/update_statistics.h"

namespace pion {

inline void check_size(const char* where, const char* what, std::size_t size,
                       std::size_t wanted) {
  if (size != wanted) {
    throw std::invalid_argument(std::string(where) + ": " + what +
                                " must have the size of weight, " +
                                std::to_string(wanted) + ", got " + std::to_string(size));
  }
}

inline void check_step(const char* where, std::int64_t step) {
  if (step < 1) {
    throw std::invalid_argument(std::string(where) + ": step must be >= 1, got " +
                                std::to_string(step));
  }
}

// weight[i] <- (1 - lr weight_decay) weight[i] - update(i, g[i]) for every i; update()
// moves the state and returns the step in T, of which lr is a factor.
template <class T, class G, class R, class Update>
UpdateStatistics elementwise_step(std::span<T> weight, std::span<const G> gradient,
                                  const R& rule, const char* where, Update update) {
  check_size(where, "gradient", gradient.size(), weight.size());
  const auto n = static_cast<std::int64_t>(weight.size());
  const GradientScan scan =
      scan_gradient<T>(view<const G>(gradient.data(), 1, n), rule.nonfinite, where);
  if (scan.skip) return {.skipped = true};
  const T decay = static_cast<T>(1.0 - rule.lr * rule.weight_decay);
  const bool moves = rule.lr != 0;
  double squares = 0;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const T g =
        scan.clean ? gradient_entry<T>(gradient[i]) : finite_or_zero<T>(gradient[i]);
    const T step = update(i, g);
    squares += static_cast<double>(step) * static_cast<double>(step);
    if (moves) weight[i] = weight[i] * decay - step;
  }
  return {.gradient_norm = scan.norm,
          .update_rms = n == 0 ? 0.0 : std::sqrt(squares / static_cast<double>(n))};
}

}  // namespace pion
