// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/adamw.h"

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

  check_size(kWhere, "gradient", gradient.size(), weight.size());
  return elementwise_step<T, G>(ElementwiseScalars(rule, step), rule.nonfinite,
                                {weight.data(), exp_avg.data(), exp_avg_sq.data()},
                                gradient.data(), weight.size(), kWhere);
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
