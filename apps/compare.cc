// SPDX-License-Identifier: Apache-2.0
// `pion compare RECIPE`.
#include "lab/run/compare.h"

#include <filesystem>
#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/files/shown_text.h"
#include "lab/run/flags.h"
#include "lab/run/named_verifiers.h"
#include "lab/run/recipe_files.h"
#include "lab/run/run_directory.h"

namespace pion::apps {
namespace fs = std::filesystem;

namespace {

std::pair<std::string, std::string> grid_flag(const std::string& grid) {
  const std::size_t equals = grid.find('=');
  if (equals == std::string::npos || equals == 0)
    throw std::invalid_argument("--grid: must be OPTIMIZER=RATE,RATE,..., got \"" +
                                lab::shortened(grid) + "\"");
  return {"compare.grid." + grid.substr(0, equals), grid.substr(equals + 1)};
}

// The recipe in the directory that is resumed.
std::string resumed_recipe_name(const std::string& out) {
  if (out.empty())
    throw std::invalid_argument(
        "needs a RECIPE (`pion recipes` lists them), or --resume with --out DIR");
  const fs::path recipe = lab::RunPaths{out}.recipe();
  if (!fs::exists(recipe))
    throw std::invalid_argument("--resume: " + out +
                                " is no comparison directory: it has no recipe.toml");
  return recipe.string();
}

int exit_code(lab::CompareOutcome outcome) {
  if (outcome == lab::CompareOutcome::kComplete) return kSuccess;
  return outcome == lab::CompareOutcome::kInterrupted ? kInterrupted : kFailed;
}

}  // namespace

int compare(const Invocation& invocation) {
  CLI::App app(
      "Tunes the learning rate of several optimizers on one recipe, then runs each at "
      "its best rate on fresh seeds.",
      "pion compare");
  app.footer(lab::alias_help());
  std::string recipe_name, optimizers, seeds, out;
  std::vector<std::string> grids;
  int jobs = 1;
  bool resume = false, dry_run = false;
  app.add_option(
      "RECIPE", recipe_name,
      "a recipe's name or a TOML file; may be left out with --resume --out DIR");
  app.add_option("--optimizers", optimizers,
                 "rules, or names in [compare.settings]: adamw,muon,pion");
  app.add_option("--seeds", seeds, "number of fresh seeds of the final runs");
  app.add_option(
         "--grid", grids,
         "adamw=1e-4,3e-4: learning rates to try; may be repeated; one rate: no tuning")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--jobs", jobs, "runs at once")->check(CLI::Range(1, 1024));
  app.add_option("--out", out, "directory of the comparison [runs/<recipe>-compare]");
  app.add_flag("--resume", resume, "continue an interrupted comparison");
  app.add_flag("--dry-run", dry_run, "print what would run, write nothing");
  add_unconfined(app);
  lab::TextPairs flags;
  if (parse(app, invocation.words, &flags)) return kSuccess;
  if (!optimizers.empty()) flags.emplace_back("compare.optimizers", optimizers);
  if (!seeds.empty()) flags.emplace_back("compare.seeds", seeds);
  for (const std::string& grid : grids) flags.push_back(grid_flag(grid));
  for (const auto& [flag, text] : flags)
    if (flag == "optimizer" || flag == "use-muon" || flag == "seed")
      throw std::invalid_argument(
          "--" + flag +
          ": a comparison chooses it itself; use --optimizers, --seeds or "
          "--compare.tune_seeds");
  if (resume && out.empty() && fs::is_directory(recipe_name)) out = recipe_name;
  if (recipe_name.empty()) recipe_name = resumed_recipe_name(resume ? out : "");
  lab::Recipe recipe = lab::Recipe::load(recipe_name);
  const lab::TextPairs resolved = lab::resolve_flags(recipe, flags, option_names(app));
  if (out.empty())
    out =
        (fs::path("runs") / (lab::find_recipe(recipe_name).stem().string() + "-compare"))
            .string();
  if (dry_run) {
    recipe.set_all(resolved);
    recipe.check_file();
    std::cout << lab::comparison_text(recipe, resolved);
    return kSuccess;
  }
  return exit_code(lab::compare({.recipe_file = recipe_name,
                                 .flags = resolved,
                                 .out = out,
                                 .program = invocation.program,
                                 .named = lab::named_by_user(flags),
                                 .jobs = jobs,
                                 .resume = resume,
                                 .command = invocation.command}));
}

}  // namespace pion::apps
