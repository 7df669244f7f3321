// SPDX-License-Identifier: Apache-2.0
// `pion optimizers`.
#include <iostream>
#include <variant>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/run/recipe.h"
#include "pion/optim/routing.h"
#include "pion/optim/rule.h"

namespace pion::apps {
namespace {

std::string value_text(const std::optional<RuleValue>& value) {
  if (!value) return "not set";
  if (const auto* flag = std::get_if<bool>(&*value)) return *flag ? "true" : "false";
  if (const auto* whole = std::get_if<std::int64_t>(&*value))
    return std::to_string(*whole);
  if (const auto* real = std::get_if<double>(&*value)) return lab::number_text(*real);
  return std::get<std::string>(*value);
}

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text + "  ";
}

}  // namespace

int optimizers(const Invocation& invocation) {
  CLI::App app(
      "Lists the update rules: keys of [optimizer.matrices] and [optimizer.rest], "
      "defaults, ranges.",
      "pion optimizers");
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  for (const std::string& name : rule_names()) {
    const Rule rule = make_rule(name);
    std::cout << name << (is_matrix_rule(rule) ? "  (matrices)" : "  (anything)") << "\n";
    for (const RuleKey& key : rule_keys(rule))
      std::cout << "  " << padded(key.name, 16) << padded(value_text(key.value), 16)
                << key.description << "\n";
    std::cout << "\n";
  }
  std::cout << "Presets, optimizer.preset in a recipe:\n";
  for (const Preset& preset : presets())
    std::cout << "  " << padded(preset.name, 12) << preset.description << "\n  "
              << padded("", 12) << "source: " << preset.source << "\n";
  return kSuccess;
}

}  // namespace pion::apps
