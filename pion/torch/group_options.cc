// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/group_options.h"

#include <torch/serialize/archive.h>

#include "pion/torch/archive_values.h"
#include "pion/torch/options.h"
#include "pion/torch/torch_error.h"

namespace pion {
namespace {

torch::IValue to_ivalue(const RuleValue& value) {
  return std::visit([](const auto& v) { return torch::IValue(v); }, value);
}

RuleValue to_rule_value(const torch::IValue& value, const std::string& key) {
  if (value.isBool()) return value.toBool();
  if (value.isInt()) return value.toInt();
  if (value.isDouble()) return value.toDouble();
  TORCH_CHECK(value.isString(), "load: option ", key,
              " must be a truth value, number or text, got ", value.tagKind());
  return value.toStringRef();
}

}  // namespace

GroupOptions& GroupOptions::set(std::string_view key, const RuleValue& value) {
  with_torch_errors([&] { set_rule_key(rule_, key, value); });
  mark(key);
  return *this;
}

GroupOptions& GroupOptions::set_layout(HeadLayout layout) {
  layout_ = std::move(layout);
  mark("heads");
  return *this;
}

GroupOptions& GroupOptions::set_fold(Fold fold) {
  fold_ = fold;
  mark("fold");
  return *this;
}

void GroupOptions::set_lr(double lr) {
  set_learning_rate(rule_, lr);
  mark("lr");
}

void GroupOptions::inherit(const GroupOptions& defaults) {
  if (!is_set("low_precision")) low_precision_ = defaults.low_precision_;
  if (!is_set("maximize")) maximize_ = defaults.maximize_;
  if (!is_set("fold")) fold_ = defaults.fold_;
  if (rule_.index() != defaults.rule_.index()) return;

  const bool own_layout = is_set("heads") || is_set("head_axis") || is_set("split_sizes");
  if (!own_layout) layout_ = defaults.layout_;
  Rule merged = defaults.rule_;
  // two ways to say the filter's strength, and a factor that belongs to its scale: the
  // group's own choice ends the other one
  if (auto* pion = std::get_if<PionRule>(&merged)) {
    if (is_set("cutoff")) pion->promotion_steps.reset();
    if (is_set("promotion_steps")) pion->cutoff = {};
  }
  if (auto* matrix = matrix_rule(merged); matrix && is_set("scale"))
    matrix->scale_factor.reset();
  for (const RuleKey& key : rule_keys(rule_)) {
    if (is_set(key.name) && key.value) {
      with_torch_errors([&] { set_rule_key(merged, key.name, *key.value); });
    }
  }
  rule_ = merged;
}

void GroupOptions::check(std::string_view where) const {
  with_torch_errors([&] { check_rule(rule_, where); });
}

void GroupOptions::serialize(torch::serialize::OutputArchive& archive) const {
  archive.write("rule", torch::IValue(std::string(rule_name(rule_))));
  for (const RuleKey& key : rule_keys(rule_)) {
    if (key.value) archive.write("key/" + key.name, to_ivalue(*key.value));
  }
  for (const std::string& key : set_keys_)
    archive.write("set/" + key, torch::IValue(true));
  archive.write("head_axis", torch::IValue(static_cast<std::int64_t>(layout_.axis)));
  archive.write("split_sizes", torch::IValue(layout_.sizes));
  archive.write("split_heads", torch::IValue(layout_.heads));
  archive.write("transposed", torch::IValue(layout_.transposed));
  archive.write("low_precision",
                torch::IValue(static_cast<std::int64_t>(low_precision_)));
  archive.write("fold", torch::IValue(static_cast<std::int64_t>(fold_)));
  archive.write("maximize", torch::IValue(maximize_));
}

void GroupOptions::serialize(torch::serialize::InputArchive& archive) {
  const std::string name = read_text(archive, "rule");
  TORCH_CHECK(name == rule_name(rule_), "load: the group's rule must be ",
              rule_name(rule_), ", got ", name,
              "; make the optimizer with the rules that it was saved with");
  Rule rule = with_torch_errors([&] { return make_rule(name); });
  std::set<std::string> set_keys;
  for (const std::string& key : archive.keys()) {
    torch::IValue value;
    if (key.rfind("key/", 0) == 0) {
      archive.read(key, value);
      const RuleValue number = to_rule_value(value, key);
      with_torch_errors([&] { set_rule_key(rule, key.substr(4), number); });
    } else if (key.rfind("set/", 0) == 0) {
      set_keys.insert(key.substr(4));
    }
  }
  with_torch_errors([&] { check_rule(rule, "load"); });
  HeadLayout layout{static_cast<int>(read_integer(archive, "head_axis", 0, 1)),
                    read_integers(archive, "split_sizes"),
                    read_integers(archive, "split_heads"),
                    read_flag(archive, "transposed")};
  const auto low_precision =
      static_cast<LowPrecision>(read_integer(archive, "low_precision", 0, 2));
  const auto fold = static_cast<Fold>(read_integer(archive, "fold", 0, 2));
  maximize_ = read_flag(archive, "maximize");
  low_precision_ = low_precision;
  if (fold != Fold::kAutomatic) fold_ = fold;  // else the group's own decision stays
  rule_ = rule, layout_ = std::move(layout), set_keys_ = std::move(set_keys);
}

bool operator==(const GroupOptions& a, const GroupOptions& b) {
  if (a.rule_.index() != b.rule_.index() || a.layout_ != b.layout_ ||
      a.fold_ != b.fold_ || a.low_precision_ != b.low_precision_ ||
      a.maximize_ != b.maximize_) {
    return false;
  }
  const auto left = rule_keys(a.rule_), right = rule_keys(b.rule_);
  return std::equal(
      left.begin(), left.end(), right.begin(), right.end(),
      [](const RuleKey& x, const RuleKey& y) { return x.value == y.value; });
}

std::unique_ptr<GroupOptions> make_options(const Rule& rule) {
  std::unique_ptr<GroupOptions> options;
  switch (rule.index()) {
    case 0:
      options = std::make_unique<PionOptions>();
      break;
    case 1:
      options = std::make_unique<MuonOptions>();
      break;
    case 2:
      options = std::make_unique<LowRankMuonOptions>();
      break;
    case 3:
      options = std::make_unique<LowPassMuonOptions>();
      break;
    case 4:
      options = std::make_unique<AdamWOptions>();
      break;
    default:
      options = std::make_unique<SgdOptions>();
      break;
  }
  for (const RuleKey& key : rule_keys(rule)) {
    if (key.value) options->set(key.name, *key.value);
  }
  return options;
}

}  // namespace pion
