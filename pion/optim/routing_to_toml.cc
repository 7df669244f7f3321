// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <string>

#include "pion/optim/routing.h"

namespace pion {
namespace {

// A basic string: quotes, backslashes and control characters are escaped.
std::string toml_text(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      result += "\\u00";
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      result += c;
    }
  }
  return result + "\"";
}

// The shortest text that reads back to the same double, told from an integer by its
// point.
std::string toml_number(double value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  std::string text(digits, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string toml_value(const RuleValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const auto* i = std::get_if<std::int64_t>(&value)) return std::to_string(*i);
  if (const double* d = std::get_if<double>(&value)) return toml_number(*d);
  return toml_text(std::get<std::string>(value));
}

std::string toml_list(const std::vector<std::int64_t>& numbers) {
  std::string text = "[";
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(numbers[i]);
  }
  return text + "]";
}

// Every key of a rule, in the order of rule_keys.
std::string rule_body(const Rule& rule) {
  std::string text = "rule = " + toml_text(rule_name(rule)) + "\n";
  for (const RuleKey& key : rule_keys(rule)) {
    const std::string line =
        key.name + " = " + (key.value ? toml_value(*key.value) : "...");
    text += (key.value ? "" : "# ") + line + "  # " + key.description + "\n";
  }
  return text;
}

std::string parameter_body(const Route& route, const std::string& rule) {
  const ParameterDescription& p = route.parameter;
  std::string text = "\n[[parameters]]\nname = " + toml_text(p.name) +
                     "\nshape = " + toml_list(p.shape) +
                     "\nrole = " + toml_text(role_name(route.role)) +
                     "\nrule = " + toml_text(rule) + "\n";
  if (is_matrix_rule(route.rule)) {
    text += "axis = " + std::to_string(route.heads.axis) +
            "\nsizes = " + toml_list(route.heads.sizes) +
            "\nheads = " + toml_list(route.heads.heads) +
            "\ntransposed = " + (route.heads.transposed ? "true" : "false") + "\n";
  }
  if (!p.module_type.empty()) text += "module_type = " + toml_text(p.module_type) + "\n";
  if (!p.tied_to.empty()) text += "tied_to = " + toml_text(p.tied_to) + "\n";
  if (!p.dtype.empty()) text += "dtype = " + toml_text(p.dtype) + "\n";
  if (p.frozen) text += "frozen = true\n";
  if (!route.reason.empty()) text += "reason = " + toml_text(route.reason) + "\n";
  return text;
}

}  // namespace

std::string Routing::to_toml() const {
  // equal rules share a table: "pion", "adamw", "pion_2"
  std::vector<std::pair<std::string, std::string>> rules;  // name, body
  std::string parameters;
  for (const Route& route : routes) {
    const std::string body = rule_body(route.rule);
    std::size_t same_kind = 0;
    const std::string kind(rule_name(route.rule));
    const std::string* name = nullptr;
    for (const auto& [known_name, known_body] : rules) {
      if (known_body == body) name = &known_name;
      if (known_name == kind || known_name.starts_with(kind + "_")) {
        same_kind += known_body.starts_with("rule = " + toml_text(kind));
      }
    }
    std::string chosen = name ? *name : kind;
    if (!name) {
      if (same_kind > 0) chosen += "_" + std::to_string(same_kind + 1);
      rules.emplace_back(chosen, body);
    }
    parameters += parameter_body(route, chosen);
  }
  std::string text =
      "# Which update rule every parameter takes. Edit and read it back; [rules.*] may "
      "be renamed\n"
      "# and added. heads cut the output rows (axis 0) or input columns (axis 1) of each "
      "part in\n"
      "# sizes into blocks of their own.\n"
      "version = 1\n";
  for (const auto& [name, body] : rules) text += "\n[rules." + name + "]\n" + body;
  return text + parameters;
}

}  // namespace pion
