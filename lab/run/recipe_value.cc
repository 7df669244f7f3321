// SPDX-License-Identifier: Apache-2.0
// Values of recipe keys: text to value and back, ranges, and the nearest name.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "lab/files/shown_text.h"
#include "lab/run/recipe_data.h"

namespace pion::lab {
namespace {

template <class T>
bool read_number(std::string_view text, T& value) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

// 1e6 and 1_000_000 are integers to a user.
bool read_integer(std::string_view text, std::int64_t& value) {
  std::string digits(text);
  std::erase(digits, '_');
  if (read_number(digits, value)) return true;
  double real = 0;
  if (!read_number(digits, real) || real != std::floor(real) || std::abs(real) > 0x1p53)
    return false;
  value = static_cast<std::int64_t>(real);
  return true;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

void check_range(const Key& key, double value) {
  if (value >= key.min && value <= key.max && std::isfinite(value)) return;
  const auto shown = [&](double number) {
    const bool whole =
        std::holds_alternative<std::int64_t>(key.fallback) && std::abs(number) < 0x1p62;
    return whole ? std::to_string(static_cast<std::int64_t>(number))
                 : number_text(number);
  };
  std::string range = "in [" + shown(key.min) + ", " + shown(key.max) + "]";
  if (key.max >= 1e300) range = ">= " + shown(key.min);
  if (key.min <= -1e300) range = "<= " + shown(key.max);
  if (key.min <= -1e300 && key.max >= 1e300) range = "a finite number";
  fail(key.name + ": must be " + range + ", got " + shown(value));
}

}  // namespace

std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".ein") == std::string::npos) text += ".0";
  return text;
}

std::string type_name(const Value& value) {
  const char* names[] = {"true or false", "an integer", "a number", "text",
                         "a list of numbers"};
  return names[value.index()];
}

std::string value_to_text(const Value& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* whole = std::get_if<std::int64_t>(&value))
    return std::to_string(*whole);
  if (const auto* real = std::get_if<double>(&value)) return number_text(*real);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  std::string list;
  for (const double each : std::get<std::vector<double>>(value))
    list += (list.empty() ? "" : ",") + number_text(each);
  return list;
}

std::string value_to_text(const RuleValue& value) {
  return std::visit([](const auto& each) { return value_to_text(Value(each)); }, value);
}

std::vector<double> parse_numbers(std::string_view name, std::string_view text) {
  std::vector<double> numbers;
  std::string_view rest = trimmed(text);
  if (rest.size() >= 2 && rest.front() == '[' && rest.back() == ']')
    rest = rest.substr(1, rest.size() - 2);
  while (!trimmed(rest).empty()) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    double value = 0;
    if (!read_number(trimmed(rest.substr(0, comma)), value))
      fail(std::string(name) + ": must be numbers with commas, as 1e-4,3e-4; got \"" +
           shortened(text) + "\"");
    numbers.push_back(value);
    rest = rest.substr(std::min(comma + 1, rest.size()));
  }
  return numbers;
}

Value parse_value(const Key& key, std::string_view text) {
  const auto wrong = [&]() {
    fail(key.name + ": must be " + type_name(key.fallback) + ", got \"" +
         shortened(text) + "\"");
  };
  if (std::holds_alternative<bool>(key.fallback)) {
    if (text == "true" || text == "1" || text == "yes") return true;
    if (text == "false" || text == "0" || text == "no") return false;
    wrong();
  }
  if (std::holds_alternative<std::int64_t>(key.fallback)) {
    std::int64_t value = 0;
    if (!read_integer(text, value)) wrong();
    return value;
  }
  if (std::holds_alternative<double>(key.fallback)) {
    double value = 0;
    if (!read_number(text, value)) wrong();
    return value;
  }
  if (std::holds_alternative<std::string>(key.fallback)) return std::string(text);
  return parse_numbers(key.name, text);
}

RuleValue parse_rule_value(std::string_view text) {
  if (text == "true" || text == "false") return text == "true";
  if (std::int64_t whole = 0; read_number(text, whole)) return whole;
  if (double real = 0; read_number(text, real)) return real;
  return std::string(text);
}

void check_value(const Key& key, const Value& value) {
  if (const auto* whole = std::get_if<std::int64_t>(&value))
    check_range(key, static_cast<double>(*whole));
  if (const auto* real = std::get_if<double>(&value)) check_range(key, *real);
  if (const auto* list = std::get_if<std::vector<double>>(&value))
    for (const double each : *list) check_range(key, each);
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr || key.choices.empty()) return;
  if (std::find(key.choices.begin(), key.choices.end(), *text) != key.choices.end())
    return;
  std::string choices;
  for (const std::string& each : key.choices)
    choices += (choices.empty() ? "\"" : ", \"") + each + "\"";
  fail(key.name + ": must be one of " + choices + ", got \"" + shortened(*text) + "\"" +
       suggestion(*text, key.choices));
}

std::string suggestion(std::string_view name, const std::vector<std::string>& names) {
  const auto leaf = [](std::string_view full) {
    return full.substr(full.rfind('.') + 1);
  };
  // the right word in the wrong table comes first
  std::string found;
  for (const std::string& each : names)
    if (leaf(each) == leaf(name) && found.empty()) found = each;
  if (found.empty()) found = nearest_name(name, names);
  if (found.empty()) {
    std::vector<std::string> leaves;
    for (const std::string& each : names) leaves.emplace_back(leaf(each));
    const std::string near = nearest_name(leaf(name), leaves);
    const auto at = std::find(leaves.begin(), leaves.end(), near);
    if (!near.empty() && at != leaves.end())
      found = names[static_cast<std::size_t>(at - leaves.begin())];
  }
  return found.empty() ? "." : "; did you mean \"" + found + "\"?";
}

}  // namespace pion::lab
