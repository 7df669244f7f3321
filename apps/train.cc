// SPDX-License-Identifier: Apache-2.0
// `pion train RECIPE`.
#include <filesystem>
#include <iostream>
#include <set>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/files/printable.h"
#include "lab/run/flags.h"
#include "lab/run/named_verifiers.h"
#include "lab/run/recipe_files.h"
#include "lab/run/run.h"
#include "lab/run/run_directory.h"

namespace pion::apps {
namespace fs = std::filesystem;

namespace {

void refuse_comparison(const std::string& out) {
  if (!out.empty() && lab::is_comparison(out))
    throw std::invalid_argument("--resume: " + out +
                                " is a comparison; continue it with pion compare "
                                "--resume --out " +
                                lab::shell_word(out));
}

// That of the run which is resumed; it must be of `task`.
lab::Recipe own_recipe(const std::string& out, const lab::TextPairs& flags,
                       const std::set<std::string>& named, const std::string& task) {
  lab::Recipe own = lab::resumed_recipe(out, flags, named);
  if (own.task() != task)
    throw std::invalid_argument("--resume: the run in " + out + " is of task \"" +
                                own.task() + "\", the recipe of \"" + task + "\"");
  return own;
}

}  // namespace

int train(const Invocation& invocation) {
  CLI::App app(
      "Trains one recipe: its name (see `pion recipes`), a TOML file or a run directory.",
      "pion train");
  app.footer(lab::alias_help());
  std::string recipe_name, out, seed, threads, track;
  bool resume = false, dry_run = false, no_report = false, quiet = false;
  app.add_option("RECIPE", recipe_name, "may be left out with --resume --out DIR");
  app.add_option("--out", out, "run directory [runs/<recipe>-<optimizer>-<seed>]");
  app.add_option("--seed", seed, "of every random generator");
  app.add_option("--threads", threads, "of this run");
  app.add_option("--track", track, "mirror metrics.jsonl: tensorboard, wandb or trackio");
  app.add_flag("--resume", resume, "continue after the newest checkpoint of --out");
  app.add_flag("--dry-run", dry_run,
               "print the resolved recipe and the routing table, write nothing");
  app.add_flag("--no-report", no_report, "do not write report.html at the end");
  app.add_flag("--quiet", quiet, "no progress");
  add_unconfined(app);
  lab::TextPairs flags;
  if (parse(app, invocation.words, &flags)) return kSuccess;
  forward(app, "seed", seed, flags);
  forward(app, "threads", threads, flags);
  forward(app, "track", track, flags);

  // a run directory as RECIPE is meant with --resume
  if (resume && out.empty() && fs::is_directory(recipe_name)) out = recipe_name;
  if (resume) refuse_comparison(out);
  if (recipe_name.empty() && !(resume && !out.empty()))
    throw std::invalid_argument(
        "needs a RECIPE (`pion recipes` lists them), or --resume with --out DIR");
  const bool saved = resume && !out.empty() && fs::exists(lab::RunPaths{out}.recipe());
  if (recipe_name.empty() && !saved)
    throw std::invalid_argument("--resume: " + out +
                                " is no run directory: it has no recipe.toml");

  const std::string source =
      recipe_name.empty() ? lab::RunPaths{out}.recipe().string() : recipe_name;
  lab::Recipe recipe = lab::Recipe::load(source);
  const lab::TextPairs resolved = lab::resolve_flags(recipe, flags, option_names(app));
  // the saved recipe has these flags in it already
  if (!saved) recipe.set_all(resolved), recipe.check_file();
  if (out.empty()) {
    const fs::path path(source);
    out = lab::default_run_directory(path.stem().string(), recipe).string();
  }
  const fs::path own = lab::RunPaths{out}.recipe();
  std::set<std::string> named = lab::named_by_user(flags);
  lab::add_handed(named, lab::find_recipe(source), own);
  if (saved) lab::require_named(lab::named_verifiers(recipe), named, out);
  if (dry_run) {
    std::cout << lab::printable(lab::dry_run_text(recipe));
    return kSuccess;
  }
  if (resume && !fs::exists(out))
    throw std::invalid_argument("--resume: no run directory " + out +
                                "; leave --resume out to start one");
  if (resume && fs::exists(own)) recipe = own_recipe(out, resolved, named, recipe.task());
  const lab::RunOutcome outcome = lab::train(recipe, {.out = out,
                                                      .resume = resume,
                                                      .quiet = quiet,
                                                      .report = !no_report,
                                                      .command = invocation.command});
  if (!outcome.complete) {
    std::cout << (outcome.step > 0
                      ? "interrupted and saved at update " + std::to_string(outcome.step)
                      : "interrupted before the first update")
              << "; continue with: pion train --resume --out " << lab::shell_word(out)
              << lab::words_to_continue(lab::named_verifiers(recipe)) << "\n";
    return kInterrupted;
  }
  std::cout << lab::ending_name(outcome.ending.kind) << ": " << out;
  if (!outcome.ending.reason.empty()) std::cout << " (" << outcome.ending.reason << ")";
  std::cout << "\n";
  return outcome.ending.kind == lab::EndingKind::kComplete ? kSuccess : kNothingLearned;
}

}  // namespace pion::apps
