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
  const bool has_momentum = rule.momentum > 0;
  if (has_momentum || !momentum_buffer.empty()) {
    check_size(kWhere, "momentum_buffer", momentum_buffer.size(), weight.size());
  }

  const T lr = static_cast<T>(rule.lr), mu = static_cast<T>(rule.momentum);
  const T share = static_cast<T>(1.0 - rule.dampening);
  return elementwise_step(weight, gradient, rule, kWhere, [&](std::size_t i, T g) {
    if (!has_momentum) return lr * g;
    T& b = momentum_buffer[i];
    b = step == 1 ? g : mu * b + share * g;
    return lr * (rule.nesterov ? g + mu * b : b);
  });
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
