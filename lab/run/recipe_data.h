// SPDX-License-Identifier: Apache-2.0
// What recipe.cc (keys) and recipe_toml.cc (files) share.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "lab/run/recipe.h"

namespace pion::lab {

// A rule table. `given` holds the keys that someone wrote down.
struct RuleTable {
  Rule rule;
  std::set<std::string> given;

  // Takes another rule's name; see Recipe::set for what is kept.
  void change_rule(const std::string& name, const std::string& table);
  void set_key(const std::string& key, const RuleValue& value, const std::string& table);
};

struct Recipe::Data {
  std::string task;
  Schema schema;  // run keys, then the task's
  std::map<std::string, Value, std::less<>> values;
  RuleTable matrices{make_rule("pion"), {}};
  RuleTable rest{make_rule("adamw"), {}};
  TextPairs overrides;  // in order: the first match wins
  std::map<std::string, std::vector<double>> grids;
  std::map<std::string, TextPairs> settings;  // [compare.settings.label]

  const Key* find(std::string_view name) const;
  RuleTable* rule_table(std::string_view table);
};

// Checks range and choices. `name` begins the message.
void check_value(const Key& key, const Value& value);
// Text to the type of key.fallback; throws.
Value parse_value(const Key& key, std::string_view text);
RuleValue parse_rule_value(std::string_view text);
std::string value_to_text(const RuleValue& value);
std::vector<double> parse_numbers(std::string_view name, std::string_view text);
// Of [optimizer.overrides]: "matrix", "rest" or a rule; throws.
void check_override(const std::string& choice);
// One learning rate >= 0 or more.
bool are_rates(const std::vector<double>& rates);
std::string type_name(const Value& value);
// `; did you mean "x"?` for the nearest of `names`, by the last part if the whole is far;
// or "".
std::string suggestion(std::string_view name, const std::vector<std::string>& names);
[[noreturn]] void fail(const std::string& message);

}  // namespace pion::lab
