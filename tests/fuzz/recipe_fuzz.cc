// SPDX-License-Identifier: Apache-2.0
// A recipe, the plan of its comparison, and flags on top of it: after a line "---", one
// word a line.
#include <sstream>

#include "lab/run/compare_plan.h"
#include "lab/run/flags.h"
#include "lab/run/recipe.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using pion::lab::Recipe;
  const auto parts = pion::fuzz::parts_of(pion::fuzz::text_of(data, size));
  pion::fuzz::accepts([&] {
    Recipe recipe = Recipe::parse(parts[0], "recipe.toml");
    // what was accepted is written as something that reads as the same
    const std::string written = recipe.to_toml();
    std::string again;
    pion::fuzz::require(pion::fuzz::accepts(
        [&] { again = Recipe::parse(written, "written").to_toml(); }));
    pion::fuzz::require(again == written);
    pion::fuzz::accepts([&] {
      const auto plan = pion::lab::make_plan(recipe, true);
      for (const auto& run : plan.tuning_runs())
        pion::fuzz::require(run.dir.find('/') == std::string::npos);
    });
    if (parts.size() < 2) return;
    std::vector<std::string> words;
    std::istringstream lines(parts[1]);
    for (std::string line; std::getline(lines, line);) words.push_back(line);
    const auto flags = pion::lab::part_words(words, {{"--out", true}}).recipe;
    recipe.set_all(pion::lab::resolve_flags(recipe, flags));
  });
  return 0;
}
