// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>

#include "pion/optim/routing.h"
#include "pion/optim/routing_checks.h"
#include "pion/optim/toml_parser.h"

namespace pion {
namespace {

[[noreturn]] void fail(const toml::source_region& at, const std::string& what) {
  throw std::invalid_argument("from_toml: line " + std::to_string(at.begin.line) +
                              ", column " + std::to_string(at.begin.column) + ": " +
                              what);
}

// Messages of the functions below this one gain their line.
template <class Function>
auto at_line(const toml::source_region& at, Function function) {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    fail(at, error.what());
  }
}

std::string in_quotes(std::string_view text) { return "\"" + std::string(text) + "\""; }

void check_keys(const toml::table& table, const std::string& where,
                const std::vector<std::string>& known) {
  for (const auto& [key, value] : table) {
    const auto same = [&key = key](const std::string& name) { return name == key.str(); };
    if (std::any_of(known.begin(), known.end(), same)) continue;
    const std::string nearest = nearest_name(key.str(), known);
    fail(key.source(),
         "unknown key " + in_quotes(key.str()) + " in " + where +
             (nearest.empty() ? "" : "; did you mean " + in_quotes(nearest) + "?"));
  }
}

// The value of a key as a C++ type; `wanted` names it in the message.
template <class Value>
std::optional<Value> read(const toml::table& table, const char* key, const char* wanted) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::nullopt;
  if (const auto value = node->value_exact<Value>()) return *value;
  fail(node->source(), std::string(key) + " must be " + wanted);
}

std::string read_text(const toml::table& table, const char* key, bool required) {
  auto value = read<std::string>(table, key, "a string");
  if (!value && required)
    fail(table.source(), std::string("the key ") + key + " must be there");
  return value.value_or("");
}

std::optional<std::vector<std::int64_t>> read_list(const toml::table& table,
                                                   const char* key) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::nullopt;
  const toml::array* array = node->as_array();
  if (array == nullptr)
    fail(node->source(), std::string(key) + " must be a list of integers");
  std::vector<std::int64_t> list;
  for (const toml::node& element : *array) {
    const auto value = element.value_exact<std::int64_t>();
    if (!value) fail(element.source(), std::string(key) + " must be a list of integers");
    list.push_back(*value);
  }
  return list;
}

RuleValue rule_value(const toml::node& node, const std::string& key) {
  if (const auto value = node.value_exact<bool>()) return *value;
  if (const auto value = node.value_exact<std::int64_t>()) return *value;
  if (const auto value = node.value_exact<double>()) return *value;
  if (const auto value = node.value_exact<std::string>()) return *value;
  fail(node.source(), key + " must be a number, a string, true or false");
}

Rule read_rule(const std::string& name, const toml::table& table) {
  const std::string kind = read_text(table, "rule", true);
  Rule rule = at_line(table.get("rule")->source(), [&] { return make_rule(kind); });
  for (const auto& [key, node] : table) {
    if (key.str() == "rule") continue;
    const RuleValue value = rule_value(node, std::string(key.str()));
    at_line(node.source(), [&] { set_rule_key(rule, key.str(), value); });
  }
  at_line(table.source(), [&] { check_rule(rule, "[rules." + name + "]"); });
  return rule;
}

std::map<std::string, Rule> read_rules(const toml::table& document) {
  std::map<std::string, Rule> rules;
  const toml::node* node = document.get("rules");
  if (node == nullptr) return rules;
  if (!node->is_table())
    fail(node->source(), "rules must be a table of tables, [rules.NAME]");
  for (const auto& [name, entry] : *node->as_table()) {
    if (!entry.is_table()) fail(entry.source(), "a rule must be a table, [rules.NAME]");
    rules.emplace(name.str(), read_rule(std::string(name.str()), *entry.as_table()));
  }
  return rules;
}

void read_heads(const toml::table& table, const Route& route, HeadLayout& heads) {
  for (const char* key : {"axis", "sizes", "heads", "transposed"}) {
    if (table.contains(key) && !is_matrix_rule(route.rule)) {
      fail(table.get(key)->source(), std::string(key) + " must be absent for rule " +
                                         in_quotes(rule_name(route.rule)) +
                                         ", which cuts nothing");
    }
  }
  const std::int64_t axis = read<std::int64_t>(table, "axis", "0 or 1").value_or(0);
  if (axis != 0 && axis != 1) fail(table.get("axis")->source(), "axis must be 0 or 1");
  heads.axis = static_cast<int>(axis);
  heads.sizes = read_list(table, "sizes").value_or(std::vector<std::int64_t>());
  heads.heads = read_list(table, "heads").value_or(std::vector<std::int64_t>{1});
  heads.transposed = read<bool>(table, "transposed", "true or false").value_or(false);
}

Route read_route(const toml::table& table, const std::map<std::string, Rule>& rules) {
  check_keys(table, "[[parameters]]",
             {"name", "shape", "role", "rule", "axis", "sizes", "heads", "transposed",
              "module_type", "tied_to", "dtype", "frozen", "reason"});
  Route route{.parameter = {.name = read_text(table, "name", true)},
              .role = Role::kVector};
  const auto shape = read_list(table, "shape");
  if (!shape) fail(table.source(), "the key shape must be there");
  route.parameter.shape = *shape;
  route.parameter.module_type = read_text(table, "module_type", false);
  route.parameter.tied_to = read_text(table, "tied_to", false);
  route.parameter.dtype = read_text(table, "dtype", false);
  route.parameter.frozen = read<bool>(table, "frozen", "true or false").value_or(false);
  route.reason = read_text(table, "reason", false);
  const std::string role = read_text(table, "role", true);
  route.role = at_line(table.get("role")->source(), [&] { return make_role(role); });
  const std::string rule = read_text(table, "rule", true);
  const auto found = rules.find(rule);
  if (found == rules.end()) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : rules) names.push_back(name);
    const std::string nearest = nearest_name(rule, names);
    fail(table.get("rule")->source(),
         "rule must name a table [rules.NAME] of this file, got " + in_quotes(rule) +
             (nearest.empty() ? "" : "; did you mean " + in_quotes(nearest) + "?"));
  }
  route.rule = found->second;
  read_heads(table, route, route.heads);
  at_line(table.source(), [&] {
    check_parameter(route.parameter, "parameters");
    check_route(route, "parameters");
  });
  return route;
}

}  // namespace

Routing Routing::from_toml(std::string_view text) {
  toml::table document;
  try {
    document = parse_toml(text);
  } catch (const toml::parse_error& error) {
    fail(error.source(), "the text must be TOML: " + std::string(error.description()));
  }
  check_keys(document, "the routing file", {"version", "rules", "parameters"});
  const auto version = read<std::int64_t>(document, "version", "the integer 1");
  if (!version) {
    fail(document.source(),
         "the key version must be there; a routing file has version = 1");
  }
  if (*version != 1) {
    fail(document.get("version")->source(),
         "version must be 1, got " + std::to_string(*version));
  }
  const std::map<std::string, Rule> rules = read_rules(document);
  Routing routing;
  std::vector<ParameterDescription> parameters;
  if (const toml::node* node = document.get("parameters")) {
    if (!node->is_array())
      fail(node->source(), "parameters must be tables, [[parameters]]");
    for (const toml::node& entry : *node->as_array()) {
      if (!entry.is_table())
        fail(entry.source(), "parameters must be tables, [[parameters]]");
      routing.routes.push_back(read_route(*entry.as_table(), rules));
      parameters.push_back(routing.routes.back().parameter);
    }
  }
  at_line(document.source(), [&] { check_parameters(parameters, "parameters"); });
  return routing;
}

}  // namespace pion
