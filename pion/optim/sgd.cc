// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/sgd.h"

#include "pion/bfloat16.h"
#include "pion/optim/elementwise_step.h"
#include "pion/optim/rule.h"

namespace pion {

template <class T, class G>
UpdateStatistics sgd_step(std::span<T> weight, std::span<const G> gradient,
                          std::span<T> momentum_buffer, std::int64_t step,
                          const SgdRule& rule) {
  constexpr const char* kWhere = "sgd_step";
  check_rule(rule, kWhere);
  check_step(kWhere, step);
  check_size(kWhere, "gradient", gradient.size(), weight.size());
  if (rule.momentum > 0 || !momentum_buffer.empty()) {
    check_size(kWhere, "momentum_buffer", momentum_buffer.size(), weight.size());
  }
  return elementwise_step<T, G>(ElementwiseScalars(rule, step), rule.nonfinite,
                                {weight.data(), momentum_buffer.data()}, gradient.data(),
                                weight.size(), kWhere);
}

#define PION_SGD(T, G)                                                       \
  template UpdateStatistics sgd_step<T, G>(std::span<T>, std::span<const G>, \
                                           std::span<T>, std::int64_t, const SgdRule&);
PION_SGD(float, float)
PION_SGD(float, double)
PION_SGD(float, bfloat16)
PION_SGD(double, float)
PION_SGD(double, double)
PION_SGD(double, bfloat16)
#undef PION_SGD

}  // namespace pion
