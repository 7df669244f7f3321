// SPDX-License-Identifier: Apache-2.0
// What a parameter group of pion holds, whatever its rule; options.h has the class of
// each rule.
#pragma once

#include <torch/optim/optimizer.h>

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "pion/optim/matrix_step.h"
#include "pion/optim/rounding.h"
#include "pion/optim/rule.h"

namespace pion {

// How a weight of more than two dimensions becomes matrices.
enum class Fold {
  kAutomatic,    // for two dimensions; a weight of more has to be decided
  kConvolution,  // (out, rest)
  kStack,        // the last two dimensions are a matrix, the others count matrices
};

// What every options class holds, whatever its rule. Keys that were set by name stay when
// the group joins an optimizer; the others come from the optimizer's defaults if those
// have the same rule. Values are checked when the group is added and again at every step.
class GroupOptions : public torch::optim::OptimizerOptions {
 public:
  const Rule& rule() const { return rule_; }
  const HeadLayout& layout() const { return layout_; }
  LowPrecision low_precision() const { return low_precision_; }
  Fold fold() const { return fold_; }
  bool maximize() const { return maximize_; }
  bool is_set(std::string_view key) const {
    return set_keys_.count(std::string(key)) > 0;
  }

  // Any key of the rule by name, as recipes have it: set("scale", "original"). Throws
  // c10::Error for an unknown key or a value of the wrong type or range.
  GroupOptions& set(std::string_view key, const RuleValue& value);
  GroupOptions& set_layout(HeadLayout layout);
  GroupOptions& set_fold(Fold fold);

  // Takes over every key of `defaults` that is not set here. Head layouts and the rule's
  // keys come from defaults of the same rule only, the rest from any.
  void inherit(const GroupOptions& defaults);

  // Throws c10::Error that begins with `where` if a value or a combination is out of
  // range.
  void check(std::string_view where) const;

  double get_lr() const override { return learning_rate(rule_); }
  void set_lr(double lr) override;
  void serialize(torch::serialize::OutputArchive& archive) const override;
  void serialize(torch::serialize::InputArchive& archive) override;

  friend bool operator==(const GroupOptions& a, const GroupOptions& b);

 protected:
  explicit GroupOptions(Rule rule) : rule_(std::move(rule)) {}
  void mark(std::string_view key) { set_keys_.emplace(key); }

  Rule rule_;
  HeadLayout layout_;
  LowPrecision low_precision_ = LowPrecision::kMasterCopy;
  Fold fold_ = Fold::kAutomatic;
  bool maximize_ = false;
  std::set<std::string> set_keys_;

 private:
  friend class Optimizer;
  bool adopted_ = false;  // joined through pion::Optimizer::add_param_group
};

// The group options that hold `rule`, every key of it set.
std::unique_ptr<GroupOptions> make_options(const Rule& rule);

}  // namespace pion
