// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <sstream>
#include <stdexcept>

#include "pion/optim/printed_bound.h"
#include "pion/optim/rule.h"
#include "pion/optim/rule_fields.h"

namespace pion {
namespace {

[[noreturn]] void fail(std::string_view where, std::string_view key,
                       const std::string& must) {
  throw std::invalid_argument(std::string(where) + ": " + std::string(key) + " must be " +
                              must);
}

std::string printed_number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string quoted(const std::string& text) {
  return std::string(1, '"').append(text).append("\"");
}

std::string value_text(const RuleValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const auto* i = std::get_if<std::int64_t>(&value)) return std::to_string(*i);
  if (const double* d = std::get_if<double>(&value)) return printed_number(*d);
  return quoted(std::get<std::string>(value));
}

std::string suggestion(std::string_view name, const std::vector<std::string>& known) {
  const std::string nearest = nearest_name(name, known);
  return nearest.empty() ? "" : "; did you mean " + quoted(nearest) + "?";
}

std::string one_of(const std::vector<std::string>& names) {
  std::string text = "one of";
  for (const std::string& name : names) text.append(" ").append(quoted(name));
  return text;
}

template <class E>
std::vector<std::string> choice_names(E e) {
  std::vector<std::string> names;
  for (const auto& choice : choices(e)) names.push_back(choice.name);
  return names;
}

const std::vector<std::string>& sequence_names() {
  static const std::vector<std::string> names = muon_sequence_names();
  return names;
}

// Where a check or an assignment happens, for the message.
struct Place {
  std::string_view where;
  std::string_view key;
  const Range& range;

  void check(double value) const {
    if (!range.holds(value))
      fail(where, key, range.text() + ", got " + printed_number(value));
  }
};

// check(value, place): throws unless a field holds an allowed value; no allocation if it
// does.
void check(bool, const Place&) {}
void check(double value, const Place& place) { place.check(value); }
void check(int value, const Place& place) { place.check(value); }
void check(std::int64_t value, const Place& place) {
  place.check(static_cast<double>(value));
}
void check(const std::string& value, const Place& place) {
  const std::vector<std::string>& names = sequence_names();
  if (std::find(names.begin(), names.end(), value) == names.end()) {
    fail(place.where, place.key,
         one_of(names) + ", got " + quoted(value) + suggestion(value, names));
  }
}
void check(const Cutoff& value, const Place& place) {
  if (value.kind == Cutoff::Kind::kValue) place.check(value.value);
}
template <class N>
void check(const std::optional<N>& value, const Place& place) {
  if (value) place.check(static_cast<double>(*value));
}
template <class E>
  requires std::is_enum_v<E>
void check(E value, const Place& place) {
  for (const auto& choice : choices(value)) {
    if (choice.value == value) return;
  }
  fail(place.where, place.key,
       one_of(choice_names(value)) + ", got number " +
           std::to_string(static_cast<int>(value)));
}

// assign(field, value, place): converts or throws.
void assign(bool& field, const RuleValue& value, const Place& place) {
  if (!std::holds_alternative<bool>(value)) {
    fail(place.where, place.key, "true or false, got " + value_text(value));
  }
  field = std::get<bool>(value);
}
void assign(double& field, const RuleValue& value, const Place& place) {
  if (const auto* i = std::get_if<std::int64_t>(&value)) {
    field = static_cast<double>(*i);
  } else if (const double* d = std::get_if<double>(&value)) {
    field = *d;
  } else {
    fail(place.where, place.key,
         "a number " + place.range.text() + ", got " + value_text(value));
  }
}
void assign(std::int64_t& field, const RuleValue& value, const Place& place) {
  if (!std::holds_alternative<std::int64_t>(value)) {
    fail(place.where, place.key,
         "an integer " + place.range.text() + ", got " + value_text(value));
  }
  field = std::get<std::int64_t>(value);
}
void assign(int& field, const RuleValue& value, const Place& place) {
  std::int64_t wide = 0;
  assign(wide, value, place);
  place.check(static_cast<double>(wide));  // every int field's range fits an int
  field = static_cast<int>(wide);
}
void assign(std::string& field, const RuleValue& value, const Place& place) {
  if (!std::holds_alternative<std::string>(value)) {
    fail(place.where, place.key, one_of(sequence_names()) + ", got " + value_text(value));
  }
  field = std::get<std::string>(value);
}
void assign(Cutoff& field, const RuleValue& value, const Place& place) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr && !std::holds_alternative<bool>(value)) {
    field.kind = Cutoff::Kind::kValue;
    assign(field.value, value, place);
  } else if (text != nullptr && *text == "auto") {
    field = {.kind = Cutoff::Kind::kAutomatic};
  } else if (text != nullptr && *text == "noise_edge") {
    field = {.kind = Cutoff::Kind::kNoiseEdge};
  } else {
    fail(place.where, place.key,
         "a number " + place.range.text() + ", \"auto\" or \"noise_edge\", got " +
             value_text(value) + (text ? suggestion(*text, {"auto", "noise_edge"}) : ""));
  }
}
template <class N>
void assign(std::optional<N>& field, const RuleValue& value, const Place& place) {
  N number{};
  assign(number, value, place);
  field = number;
}
template <class E>
  requires std::is_enum_v<E>
void assign(E& field, const RuleValue& value, const Place& place) {
  const std::vector<std::string> names = choice_names(field);
  const auto* text = std::get_if<std::string>(&value);
  for (const auto& choice : choices(field)) {
    if (text != nullptr && *text == choice.name) {
      field = choice.value;
      return;
    }
  }
  fail(place.where, place.key,
       one_of(names) + ", got " + value_text(value) +
           (text ? suggestion(*text, names) : ""));
}

// shown(field): the value as users write it.
std::optional<RuleValue> shown(bool value) { return RuleValue(value); }
std::optional<RuleValue> shown(double value) { return RuleValue(value); }
std::optional<RuleValue> shown(int value) { return RuleValue(std::int64_t{value}); }
std::optional<RuleValue> shown(std::int64_t value) { return RuleValue(value); }
std::optional<RuleValue> shown(const std::string& value) { return RuleValue(value); }
std::optional<RuleValue> shown(const Cutoff& value) {
  if (value.kind == Cutoff::Kind::kValue) return RuleValue(value.value);
  return RuleValue(
      std::string(value.kind == Cutoff::Kind::kAutomatic ? "auto" : "noise_edge"));
}
template <class N>
std::optional<RuleValue> shown(const std::optional<N>& value) {
  return value ? shown(*value) : std::nullopt;
}
template <class E>
  requires std::is_enum_v<E>
std::optional<RuleValue> shown(E value) {
  for (const auto& choice : choices(value)) {
    if (choice.value == value) return RuleValue(std::string(choice.name));
  }
  return std::nullopt;
}

// The field called `key`, or a throw that lists the keys.
template <class R>
const Field<R>& find_field(const R&, std::string_view rule, std::string_view key,
                           std::string_view where) {
  std::vector<std::string> keys;
  for (const Field<R>& field : rule_fields<R>()) {
    if (key == field.key) return field;
    keys.push_back(field.key);
  }
  std::string message = std::string(where) + ": unknown key \"" + std::string(key) +
                        "\" for rule \"" + std::string(rule) + "\"" +
                        suggestion(key, keys) + " Keys are:";
  for (const std::string& known : keys) message += " " + known;
  throw std::invalid_argument(message);
}

// smallest_cutoff without its allocation: a step checks its rule every time.
double reachable_cutoff(int steps) {
  static const std::array<double, 65> table = [] {
    std::array<double, 65> smallest{};
    for (int n = 1; n <= 64; ++n)
      smallest[static_cast<std::size_t>(n)] = smallest_cutoff(n);
    return smallest;
  }();
  return table[static_cast<std::size_t>(steps)];
}

// Combinations. The ranges hold already.
void check_scale_factor(const MatrixRule& rule, std::string_view where) {
  if (rule.scale_factor && rule.scale != Scale::kOfficial &&
      rule.scale != Scale::kUnitRms) {
    fail(where, "scale_factor",
         "absent for scale \"" + std::string(scale_name(rule.scale)) + "\", got " +
             printed_number(*rule.scale_factor) +
             "; it belongs to \"official\" and \"unit_rms\"");
  }
}
void check_combination(const MatrixRule& rule, std::string_view where) {
  check_scale_factor(rule, where);
}
void check_combination(const PionRule& rule, std::string_view where) {
  check_scale_factor(rule, where);
  if (rule.edge_factor != PionRule{}.edge_factor &&
      (rule.promotion_steps || rule.cutoff.kind != Cutoff::Kind::kNoiseEdge)) {
    fail(where, "edge_factor",
         printed_number(PionRule{}.edge_factor) +
             " unless cutoff is \"noise_edge\", got " + printed_number(rule.edge_factor));
  }
  if (rule.promotion_steps) {
    if (*rule.promotion_steps > rule.steps) {
      fail(where, "promotion_steps",
           "at most steps, " + std::to_string(rule.steps) + ", got " +
               std::to_string(*rule.promotion_steps));
    }
    if (rule.cutoff.kind != Cutoff::Kind::kAutomatic) {
      fail(where, "promotion_steps",
           "absent when a cutoff is given, got both: the published map has no cutoff. "
           "Leave one out");
    }
  } else if (rule.cutoff.kind == Cutoff::Kind::kValue) {
    const double smallest = reachable_cutoff(rule.steps);
    if (rule.cutoff.value < smallest) {
      fail(where, "cutoff",
           "at least " + printed_bound(smallest, 6, /*lower=*/true) +
               " for steps = " + std::to_string(rule.steps) + ", got " +
               printed_number(rule.cutoff.value) + "; raise cutoff or steps");
    }
  }
}
void check_combination(const AdamWRule&, std::string_view) {}
void check_combination(const SgdRule& rule, std::string_view where) {
  if (rule.nesterov && (rule.momentum <= 0 || rule.dampening != 0)) {
    fail(where, "nesterov",
         "false unless momentum > 0 and dampening = 0, got momentum " +
             printed_number(rule.momentum) + " and dampening " +
             printed_number(rule.dampening));
  }
}

}  // namespace

std::vector<RuleKey> rule_keys(const Rule& rule) {
  std::vector<RuleKey> keys;
  std::visit(
      [&keys]<class R>(const R& r) {
        for (const Field<R>& field : rule_fields<R>()) {
          auto value =
              std::visit([&r](auto member) { return shown(r.*member); }, field.member);
          keys.push_back({field.key, field.description, std::move(value)});
        }
      },
      rule);
  return keys;
}

void set_rule_key(Rule& rule, std::string_view key, const RuleValue& value) {
  constexpr std::string_view kWhere = "set_rule_key";
  std::visit(
      [&]<class R>(R& r) {
        const Field<R>& field = find_field(r, rule_name(rule), key, kWhere);
        const Place place{kWhere, key, field.range};
        std::visit(
            [&](auto member) {
              auto changed = r.*member;
              assign(changed, value, place);
              check(changed, place);
              r.*member = std::move(changed);
            },
            field.member);
      },
      rule);
}

std::optional<RuleValue> get_rule_key(const Rule& rule, std::string_view key) {
  return std::visit(
      [&]<class R>(const R& r) {
        const Field<R>& field = find_field(r, rule_name(rule), key, "get_rule_key");
        return std::visit([&r](auto member) { return shown(r.*member); }, field.member);
      },
      rule);
}

void check_rule(const Rule& rule, std::string_view where) {
  std::visit(
      [where]<class R>(const R& r) {
        for (const Field<R>& field : rule_fields<R>()) {
          const Place place{where, field.key, field.range};
          std::visit([&](auto member) { check(r.*member, place); }, field.member);
        }
        check_combination(r, where);
      },
      rule);
}

}  // namespace pion
