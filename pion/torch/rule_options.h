// SPDX-License-Identifier: Apache-2.0
// What the options classes of options.h share: setters that can be chained.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "pion/torch/group_options.h"

namespace pion {

// A key of the rule: name(value) sets and marks it, name() reads it.
#define PION_OPTION(type, name)                            \
  Self& name(type value) {                                 \
    std::get<Values>(this->rule_).name = std::move(value); \
    return this->marked(#name);                            \
  }                                                        \
  const decltype(Values::name)& name() const {             \
    return std::get<Values>(this->rule_).name;             \
  }

// The setters that all rules share; Derived is the class that users name.
template <class Derived, class RuleType>
class RuleOptions : public GroupOptions {
 public:
  using Self = Derived;
  using Values = RuleType;
  RuleOptions() : GroupOptions(RuleType{}) {}

  PION_OPTION(double, lr)
  PION_OPTION(double, weight_decay)
  PION_OPTION(NonFinite, nonfinite)

  using GroupOptions::low_precision;
  using GroupOptions::maximize;
  Self& low_precision(LowPrecision value) {
    low_precision_ = value;
    return marked("low_precision");
  }
  Self& maximize(bool value) {  // steps along the gradient, not against it
    maximize_ = value;
    return marked("maximize");
  }
  // GroupOptions' setters, which here return the class that users name.
  Self& set(std::string_view key, const RuleValue& value) {
    GroupOptions::set(key, value);
    return static_cast<Self&>(*this);
  }
  Self& set_layout(HeadLayout layout) {
    GroupOptions::set_layout(std::move(layout));
    return static_cast<Self&>(*this);
  }
  Self& set_fold(Fold fold) {
    GroupOptions::set_fold(fold);
    return static_cast<Self&>(*this);
  }
  std::unique_ptr<torch::optim::OptimizerOptions> clone() const override {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }

 protected:
  Self& marked(std::string_view key) {
    mark(key);
    return static_cast<Self&>(*this);
  }
};

// The setters of rules for matrices. heads(8) cuts the output rows in 8 blocks, with
// head_axis(1) the input columns; a fused QKV has split_sizes({512, 128, 128}) and
// split_heads({8, 2, 2}).
template <class Derived, class RuleType>
class MatrixOptions : public RuleOptions<Derived, RuleType> {
 public:
  using Self = Derived;
  using Values = RuleType;

  PION_OPTION(double, momentum)
  PION_OPTION(bool, nesterov)
  PION_OPTION(Scale, scale)
  PION_OPTION(double, scale_factor)

  using GroupOptions::fold;
  Self& fold(Fold value) {
    this->fold_ = value;
    return this->marked("fold");
  }
  Self& heads(std::int64_t count) { return split_heads({count}); }
  Self& head_axis(int axis) {
    this->layout_.axis = axis;
    return this->marked("head_axis");
  }
  Self& split_sizes(std::vector<std::int64_t> sizes) {
    this->layout_.sizes = std::move(sizes);
    return this->marked("split_sizes");
  }
  Self& split_heads(std::vector<std::int64_t> heads) {
    this->layout_.heads = std::move(heads);
    return this->marked("heads");
  }
};

}  // namespace pion
