// SPDX-License-Identifier: Apache-2.0
// `pion recipes`.
#include <algorithm>
#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/run/recipe_files.h"

namespace pion::apps {

int recipes(const Invocation& invocation) {
  CLI::App app("Lists the recipes, with the question that each asks.", "pion recipes");
  app.footer("Directories: $PION_RECIPES (with colons between), then pion's own.");
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  const std::vector<lab::RecipeFile> files = lab::recipe_files();
  std::size_t width = 0;
  for (const lab::RecipeFile& file : files) width = std::max(width, file.name.size());
  for (const lab::RecipeFile& file : files)
    std::cout << file.name << std::string(width + 2 - file.name.size(), ' ')
              << file.question << "\n";
  return kSuccess;
}

}  // namespace pion::apps
