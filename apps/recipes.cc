// SPDX-License-Identifier: Apache-2.0
// `pion recipes`.
#include <algorithm>
#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/files/printable.h"
#include "lab/run/recipe.h"
#include "lab/run/recipe_files.h"

namespace pion::apps {
namespace {

constexpr double kUnbounded = 1e300, kMany = 0x1p40;  // bounds that say nothing

std::string bound_text(double value) {
  const std::string text = lab::number_text(value);
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

void list_recipes() {
  const std::vector<lab::RecipeFile> files = lab::recipe_files();
  std::size_t width = 0;
  for (const lab::RecipeFile& file : files) width = std::max(width, file.name.size());
  for (const lab::RecipeFile& file : files)
    std::cout << lab::printable_line(file.name)
              << std::string(width + 2 - file.name.size(), ' ')
              << lab::printable_line(file.question) << "\n";
}

// "; one of a, b", "; in [0, 1]", "; >= 0" or nothing.
std::string allowed(const lab::Key& key) {
  if (!key.choices.empty()) {
    std::string text = "; one of";
    for (const std::string& choice : key.choices)
      text += (text.ends_with("of") ? " " : ", ") + (choice.empty() ? "\"\"" : choice);
    return text;
  }
  if (!std::holds_alternative<std::int64_t>(key.fallback) &&
      !std::holds_alternative<double>(key.fallback))
    return "";
  const std::string low = bound_text(key.min), high = bound_text(key.max);
  if (key.min <= -kUnbounded) return key.max >= kMany ? "" : "; <= " + high;
  return key.max >= kMany ? "; >= " + low : "; in [" + low + ", " + high + "]";
}

void describe_recipe(const std::string& name) {
  const lab::Recipe recipe = lab::Recipe::load(name);
  std::cout << name << ", task " << recipe.task()
            << ": every key, its value here, what it means\n\n";
  for (const lab::Key& key : recipe.schema()) {
    std::string line = "  " + key.name;
    line.resize(std::max<std::size_t>(line.size() + 2, 34), ' ');
    const std::string value = recipe.value_text(key.name);
    line += value.empty() ? "\"\"" : lab::printable_line(value);
    line.resize(std::max<std::size_t>(line.size() + 2, 50), ' ');
    std::cout << line << key.description << allowed(key) << "\n";
  }
  std::cout << "\nKeys of [optimizer.matrices] and [optimizer.rest]: pion optimizers\n";
}

}  // namespace

int recipes(const Invocation& invocation) {
  CLI::App app("Lists the recipes, with the question that each asks; or a recipe's keys.",
               "pion recipes");
  app.footer("Directories: $PION_RECIPES (with colons between), then pion's own.");
  std::string name;
  app.add_option("RECIPE", name, "a name or a TOML file: its keys, values and ranges");
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  if (name.empty())
    list_recipes();
  else
    describe_recipe(name);
  return kSuccess;
}

}  // namespace pion::apps
