// SPDX-License-Identifier: Apache-2.0
// The update rules by name and their hyperparameters by key. Every front end (C++,
// recipes, routing files, groups of LibTorch) reads names, defaults and ranges from here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pion/optim/adamw.h"
#include "pion/optim/matrix_rule.h"
#include "pion/optim/muon.h"
#include "pion/optim/pion.h"
#include "pion/optim/sgd.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

using Rule = std::variant<PionRule, MuonRule, LowRankMuonRule, LowPassMuonRule, AdamWRule,
                          SgdRule>;

// Names as users type them: "pion", "muon", "low_rank_muon", "low_pass_muon", "adamw",
// "sgd".
std::vector<std::string> rule_names();
// The rule with its defaults. Throws std::invalid_argument with the nearest right name.
Rule make_rule(std::string_view name);
std::string_view rule_name(const Rule& rule);
bool is_matrix_rule(const Rule& rule);
// What the four matrix rules share; nullptr for the others.
const MatrixRule* matrix_rule(const Rule& rule);
MatrixRule* matrix_rule(Rule& rule);
double learning_rate(const Rule& rule);
void set_learning_rate(Rule& rule, double lr);
NonFinite nonfinite_policy(const Rule& rule);

// Hyperparameters by key ("lr", "momentum", "cutoff", ...). Values are bool, integer,
// number or text; "cutoff" takes a number, "auto" or "noise_edge"; an unset optional is
// absent.
using RuleValue = std::variant<bool, std::int64_t, double, std::string>;
struct RuleKey {
  std::string name;                // "weight_decay"
  std::string description;         // one line with range and unit
  std::optional<RuleValue> value;  // the rule's present value
};
std::vector<RuleKey> rule_keys(const Rule& rule);
// Throws std::invalid_argument for an unknown key (with the nearest right one), a wrong
// type or a value out of range; the rule is then unchanged. An integer is taken where a
// number is wanted. How keys go together is left to check_rule, so that their order does
// not matter.
void set_rule_key(Rule& rule, std::string_view key, const RuleValue& value);
std::optional<RuleValue> get_rule_key(const Rule& rule, std::string_view key);

// Checks every field and their combination (cutoff and promotion_steps together,
// scale_factor with a scale that has none, a cutoff that `steps` cannot reach). `where`
// begins the message.
void check_rule(const Rule& rule, std::string_view where);

// The nearest of `candidates` by edit distance, by initials ("learning_rate" and "lr") or
// as a part of one another ("decay" and "weight_decay"); "" if none is near.
std::string nearest_name(std::string_view name,
                         const std::vector<std::string>& candidates);

}  // namespace pion
