// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/adamw.h"

#include <cmath>

#include "pion/bfloat16.h"
#include "pion/optim/elementwise_step.h"
#include "pion/optim/rule.h"

namespace pion {

template <class T, class G>
UpdateStatistics adamw_step(std::span<T> weight, std::span<const G> gradient,
                            std::span<T> exp_avg, std::span<T> exp_avg_sq,
                            std::int64_t step, const AdamWRule& rule) {
  constexpr const char* kWhere = "adamw_step";
  check_rule(rule, kWhere);
  check_step(kWhere, step);
  check_size(kWhere, "exp_avg", exp_avg.size(), weight.size());
  check_size(kWhere, "exp_avg_sq", exp_avg_sq.size(), weight.size());

  // scalars in double, as torch has them
  const double t = static_cast<double>(step);
  const T step_size = static_cast<T>(rule.lr / (1.0 - std::pow(rule.beta1, t)));
  const T correction = static_cast<T>(std::sqrt(1.0 - std::pow(rule.beta2, t)));
  const T b1 = static_cast<T>(rule.beta1), c1 = static_cast<T>(1.0 - rule.beta1);
  const T b2 = static_cast<T>(rule.beta2), c2 = static_cast<T>(1.0 - rule.beta2);
  const T eps = static_cast<T>(rule.eps);
  return elementwise_step(weight, gradient, rule, kWhere, [&](std::size_t i, T g) {
    const T m = exp_avg[i] = b1 * exp_avg[i] + c1 * g;
    const T v = exp_avg_sq[i] = b2 * exp_avg_sq[i] + c2 * g * g;
    return step_size * (m / (std::sqrt(v) / correction + eps));
  });
}

#define PION_ADAMW(T, G)                                                               \
  template UpdateStatistics adamw_step<T, G>(std::span<T>, std::span<const G>,         \
                                             std::span<T>, std::span<T>, std::int64_t, \
                                             const AdamWRule&);
PION_ADAMW(float, float)
PION_ADAMW(float, double)
PION_ADAMW(float, bfloat16)
PION_ADAMW(double, float)
PION_ADAMW(double, double)
PION_ADAMW(double, bfloat16)
#undef PION_ADAMW

}  // namespace pion
