// SPDX-License-Identifier: Apache-2.0
#include "lab/run/recipe.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lab/files/plain_name.h"
#include "lab/files/shown_text.h"
#include "lab/files/utf8.h"
#include "lab/run/recipe_data.h"
#include "lab/run/task_info.h"

namespace pion::lab {
namespace {

constexpr std::string_view kMatrices = "optimizer.matrices";
constexpr std::string_view kRest = "optimizer.rest";
constexpr std::string_view kOverrides = "optimizer.overrides";
constexpr std::string_view kGrid = "compare.grid";

// "optimizer.matrices.lr" -> {"optimizer.matrices", "lr"}.
std::pair<std::string, std::string> split_key(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  if (dot == std::string_view::npos) return {"", std::string(key)};
  return {std::string(key.substr(0, dot)), std::string(key.substr(dot + 1))};
}

template <class T>
const T& typed(const std::map<std::string, Value, std::less<>>& values,
               std::string_view key) {
  const auto at = values.find(key);
  if (at == values.end())
    fail("recipe: no key \"" + std::string(key) + "\" in this task's schema");
  const T* value = std::get_if<T>(&at->second);
  if (value == nullptr)
    fail("recipe: key \"" + std::string(key) + "\" is read with another type than " +
         type_name(at->second));
  return *value;
}

[[noreturn]] void refuse_beside_preset(const std::string& key,
                                       const std::string& preset) {
  fail(key + ": preset \"" + preset +
       "\" sets every rule itself; leave out that flag, or the preset");
}

// The first key of a rule table that is not at its default, as "lr"; or "".
std::string changed_key(const Rule& rule, const char* usual) {
  if (rule_name(rule) != usual) return "rule";
  const Rule defaults = make_rule(usual);
  for (const RuleKey& key : rule_keys(rule))
    if (get_rule_key(rule, key.name) != get_rule_key(defaults, key.name)) return key.name;
  return "";
}

}  // namespace

void fail(const std::string& message) { throw std::invalid_argument(message); }

void check_override(const std::string& choice) {
  std::vector<std::string> choices = rule_names();
  choices.insert(choices.end(), {"matrix", "rest"});
  if (std::find(choices.begin(), choices.end(), choice) == choices.end())
    fail("[optimizer.overrides]: must be \"matrix\", \"rest\" or a rule, got \"" +
         shortened(choice) + "\"" + suggestion(choice, choices));
}

bool are_rates(const std::vector<double>& rates) {
  return !rates.empty() && std::all_of(rates.begin(), rates.end(), [](double rate) {
    return rate >= 0 && std::isfinite(rate);
  });
}

const Key* Recipe::Data::find(std::string_view name) const {
  const auto at = std::find_if(schema.begin(), schema.end(),
                               [&](const Key& key) { return key.name == name; });
  return at == schema.end() ? nullptr : &*at;
}

RuleTable* Recipe::Data::rule_table(std::string_view table) {
  return table == kMatrices ? &matrices : table == kRest ? &rest : nullptr;
}

void RuleTable::change_rule(const std::string& name, const std::string& table) {
  if (rule_name(rule) == name) return;
  Rule changed;
  try {
    changed = make_rule(name);
  } catch (const std::invalid_argument&) {
    std::string names;
    for (const std::string& each : rule_names())
      names += (names.empty() ? "" : ", ") + each;
    fail("unknown rule \"" + shortened(name) + "\" in [" + table + "]" +
         suggestion(name, rule_names()) + " There are: " + names);
  }
  const Rule defaults = make_rule(rule_name(rule));
  std::set<std::string> kept;
  for (const std::string& key : given) {
    const std::optional<RuleValue> value = get_rule_key(rule, key);
    if (!value) continue;
    const std::vector<RuleKey> keys = rule_keys(changed);
    const bool shared = std::any_of(
        keys.begin(), keys.end(), [&](const RuleKey& each) { return each.name == key; });
    if (shared) {
      set_rule_key(changed, key, *value);
      kept.insert(key);
    } else if (value != get_rule_key(defaults, key)) {
      fail("[" + table + "] sets " + key + " = " + value_to_text(*value) +
           ", which rule \"" + name +
           "\" does not have; remove it, or move it to [compare.settings." +
           std::string(rule_name(rule)) +
           "], which holds what one optimizer of a comparison needs");
    }
  }
  rule = std::move(changed);
  given = std::move(kept);
}

void RuleTable::set_key(const std::string& key, const RuleValue& value,
                        const std::string& table) {
  std::vector<std::string> names = {"rule"};
  for (const RuleKey& each : rule_keys(rule)) names.push_back(each.name);
  if (std::find(names.begin(), names.end(), key) == names.end())
    fail("unknown key \"" + shortened(key) + "\" in [" + table + "], rule \"" +
         std::string(rule_name(rule)) + "\"" + suggestion(key, names));
  set_rule_key(rule, key, value);
  given.insert(key);
}

Recipe::Data& Recipe::writable() {
  if (data_.use_count() > 1) data_ = std::make_shared<Data>(*data_);
  return *data_;
}

void Recipe::set(std::string_view key, std::string_view text) {
  Data& data = writable();
  const auto [table, leaf] = split_key(key);
  if (!is_utf8(text))
    fail(std::string(key) + ": must be UTF-8, as the recipe that a run leaves; rename " +
         "the file or folder");
  if (RuleTable* rule = data.rule_table(table)) {
    if (leaf == "rule") return rule->change_rule(std::string(text), table);
    return rule->set_key(leaf, parse_rule_value(text), table);
  }
  if (key == "task") {
    if (text != data.task)
      fail("--task: the recipe's task is \"" + data.task + "\"; use a recipe of task \"" +
           std::string(text) + "\"");
    return;
  }
  if (key == kOverrides) {
    const std::size_t equals = text.rfind('=');
    if (equals == std::string_view::npos || equals == 0)
      fail("optimizer.overrides: must be GLOB=matrix, GLOB=rest or GLOB=<rule>, got \"" +
           shortened(text) + "\"");
    std::pair glob_choice{std::string(text.substr(0, equals)),
                          std::string(text.substr(equals + 1))};
    check_override(glob_choice.second);
    // a flag goes before the file's, the first match wins; a table has each glob once
    std::erase_if(data.overrides,
                  [&](const auto& each) { return each.first == glob_choice.first; });
    data.overrides.insert(data.overrides.begin(), std::move(glob_choice));
    return;
  }
  if (table == kGrid) {
    check_plain_name(leaf, std::string(kGrid));
    std::vector<std::string> labels = rule_names();
    for (const auto& [label, settings] : data.settings) labels.push_back(label);
    if (std::find(labels.begin(), labels.end(), leaf) == labels.end())
      fail(shortened(key) + ": unknown optimizer \"" + shortened(leaf) + "\"" +
           suggestion(leaf, labels));
    std::vector<double> rates = parse_numbers(key, text);
    if (!are_rates(rates))
      fail(std::string(key) + ": must be one learning rate >= 0 or more, got \"" +
           shortened(text) + "\"");
    data.grids[leaf] = std::move(rates);
    return;
  }
  const Key* known = data.find(key);
  if (known == nullptr)
    fail("unknown key \"" + shortened(key) + "\"" + suggestion(key, key_names()));
  Value value = parse_value(*known, text);
  check_value(*known, value);
  data.values.insert_or_assign(known->name, std::move(value));
}

void Recipe::set_all(const TextPairs& flags) {
  const auto is_rule = [](const std::string& key) {
    return key == "optimizer.matrices.rule" || key == "optimizer.rest.rule";
  };
  for (const bool rules : {true, false})
    for (const auto& [key, text] : flags)
      if (is_rule(key) == rules) set(key, text);
  if (const std::string& preset = text("optimizer.preset"); !preset.empty())
    for (const auto& [key, value] : flags)
      if (data_->rule_table(split_key(key).first) != nullptr)
        refuse_beside_preset(key, preset);
  check();
}

void Recipe::check() const {
  if (const std::string& preset = text("optimizer.preset"); !preset.empty()) {
    // a saved recipe names every key: those at their defaults say nothing
    for (const auto& [table, key] :
         {std::pair(kMatrices, changed_key(matrices(), "pion")),
          std::pair(kRest, changed_key(rest(), "adamw"))})
      if (!key.empty()) refuse_beside_preset(std::string(table) + "." + key, preset);
  }
  if (text("optimizer.schedule") == "constant" &&
      number("optimizer.final_lr_factor") != 0)
    fail(
        "optimizer.final_lr_factor = " + value_text("optimizer.final_lr_factor") +
        " has no effect: optimizer.schedule is \"constant\"; set it to linear or cosine, "
        "or leave the factor out");
  check_rule(matrices(), "[optimizer.matrices]");
  check_rule(rest(), "[optimizer.rest]");
  if (is_matrix_rule(rest()))
    fail(
        "[optimizer.rest]: rule must be adamw or sgd, because what is no hidden matrix "
        "has no spectrum; got \"" +
        std::string(rule_name(rest())) + "\"");
}

bool Recipe::flag(std::string_view key) const { return typed<bool>(data_->values, key); }
std::int64_t Recipe::integer(std::string_view key) const {
  return typed<std::int64_t>(data_->values, key);
}
double Recipe::number(std::string_view key) const {
  const auto at = data_->values.find(key);
  if (at != data_->values.end())
    if (const auto* whole = std::get_if<std::int64_t>(&at->second))
      return static_cast<double>(*whole);
  return typed<double>(data_->values, key);
}
const std::string& Recipe::text(std::string_view key) const {
  if (key == "task") return data_->task;
  return typed<std::string>(data_->values, key);
}
const std::vector<double>& Recipe::numbers(std::string_view key) const {
  return typed<std::vector<double>>(data_->values, key);
}
const std::string& Recipe::task() const { return data_->task; }
const Rule& Recipe::matrices() const { return data_->matrices.rule; }
const Rule& Recipe::rest() const { return data_->rest.rule; }
const TextPairs& Recipe::overrides() const { return data_->overrides; }
const std::map<std::string, std::vector<double>>& Recipe::grids() const {
  return data_->grids;
}
const Schema& Recipe::schema() const { return data_->schema; }

TextPairs Recipe::variant(const std::string& label) const {
  TextPairs flags;
  std::string rule = label;
  if (const auto at = data_->settings.find(label); at != data_->settings.end())
    for (const auto& [name, text] : at->second) {
      if (name == "rule")
        rule = text;
      else if (name.find('.') == std::string::npos && data_->find(name) == nullptr)
        flags.emplace_back("optimizer.matrices." + name, text);
      else
        flags.emplace_back(name, text);
    }
  flags.insert(flags.begin(), {"optimizer.matrices.rule", rule});
  return flags;
}

std::vector<std::string> Recipe::key_names() const {
  std::vector<std::string> names;
  for (const Key& key : data_->schema) names.push_back(key.name);
  for (const RuleTable* table : {&data_->matrices, &data_->rest}) {
    const std::string prefix =
        std::string(table == &data_->matrices ? kMatrices : kRest) + ".";
    names.push_back(prefix + "rule");
    for (const RuleKey& key : rule_keys(table->rule)) names.push_back(prefix + key.name);
  }
  names.emplace_back(kOverrides);
  for (const std::string& rule : rule_names())
    names.push_back(std::string(kGrid) + "." + rule);
  return names;
}

std::string Recipe::value_text(std::string_view key) const {
  const auto [table, leaf] = split_key(key);
  if (const RuleTable* rule = data_->rule_table(table)) {
    if (leaf == "rule") return std::string(rule_name(rule->rule));
    const std::optional<RuleValue> value = get_rule_key(rule->rule, leaf);
    return value ? value_to_text(*value) : "";
  }
  const auto at = data_->values.find(key);
  if (at == data_->values.end())
    fail("unknown key \"" + std::string(key) + "\"" + suggestion(key, key_names()));
  return value_to_text(at->second);
}

}  // namespace pion::lab
