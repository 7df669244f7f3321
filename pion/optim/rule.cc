// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/rule.h"

#include <stdexcept>
#include <type_traits>
#include <utility>

#include "pion/optim/rule_fields.h"

namespace pion {
namespace {

constexpr std::string_view kRuleNames[] = {"pion",          "muon",  "low_rank_muon",
                                           "low_pass_muon", "adamw", "sgd"};
static_assert(std::size(kRuleNames) == std::variant_size_v<Rule>);

template <class R>
constexpr bool kIsMatrixRule = std::is_base_of_v<MatrixRule, R>;

// The alternative number `index` with its defaults.
template <std::size_t... I>
Rule make_alternative(std::size_t index, std::index_sequence<I...>) {
  Rule rule;
  static_cast<void>(((index == I ? (rule.emplace<I>(), true) : false) || ...));
  return rule;
}

}  // namespace

std::vector<std::string> rule_names() {
  return {std::begin(kRuleNames), std::end(kRuleNames)};
}

Rule make_rule(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kRuleNames); ++i) {
    if (kRuleNames[i] == name) {
      return make_alternative(i, std::make_index_sequence<std::variant_size_v<Rule>>());
    }
  }
  std::string message = "make_rule: unknown rule \"" + std::string(name) + "\"";
  const std::string nearest = nearest_name(name, rule_names());
  if (!nearest.empty()) message += "; did you mean \"" + nearest + "\"?";
  message += " Rules are:";
  for (const std::string_view known : kRuleNames) message.append(" ").append(known);
  throw std::invalid_argument(message);
}

std::string_view rule_name(const Rule& rule) { return kRuleNames[rule.index()]; }

bool is_matrix_rule(const Rule& rule) { return matrix_rule(rule) != nullptr; }

const MatrixRule* matrix_rule(const Rule& rule) {
  return std::visit(
      [](const auto& r) -> const MatrixRule* {
        if constexpr (kIsMatrixRule<std::decay_t<decltype(r)>>) {
          return &r;
        } else {
          return nullptr;
        }
      },
      rule);
}

MatrixRule* matrix_rule(Rule& rule) {
  return const_cast<MatrixRule*>(matrix_rule(std::as_const(rule)));
}

double learning_rate(const Rule& rule) {
  return std::visit([](const auto& r) { return r.lr; }, rule);
}

void set_learning_rate(Rule& rule, double lr) {
  std::visit([lr](auto& r) { r.lr = lr; }, rule);
}

NonFinite nonfinite_policy(const Rule& rule) {
  return std::visit([](const auto& r) { return r.nonfinite; }, rule);
}

std::string_view scale_name(Scale scale) {
  for (const auto& choice : choices(scale)) {
    if (choice.value == scale) return choice.name;
  }
  return "unknown";
}

}  // namespace pion
