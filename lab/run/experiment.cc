// SPDX-License-Identifier: Apache-2.0
// From a recipe to its parts, and what needs no training.
#include <cmath>
#include <numbers>
#include <set>
#include <stdexcept>

#include "lab/files/thread_limit.h"
#include "lab/run/checkpoint.h"
#include "lab/run/named_verifiers.h"
#include "lab/run/recipe_files.h"
#include "lab/run/run.h"
#include "lab/run/run_directory.h"
#include "lab/run/start_policy.h"
#include "pion/kernels/cpu_target.h"
#include "pion/torch/pion.h"

namespace pion::lab {
namespace {

// ", as runs/x/pion-lr0.001-seed1": the first by name, or nothing.
std::string a_run_of(const std::filesystem::path& comparison) {
  std::set<std::filesystem::path> runs;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(comparison, error))
    if (!checkpoint_steps(RunPaths{entry.path()}.checkpoints()).empty())
      runs.insert(entry.path());
  return runs.empty() ? "" : ", as " + runs.begin()->string();
}

}  // namespace

Experiment make_experiment(const Recipe& recipe) {
  try {
    cpu_target();  // throws for one that this machine lacks
    const auto threads = static_cast<int>(recipe.integer("threads"));
    require_threads(threads, "threads");
    if (at::get_num_threads() != threads) at::set_num_threads(threads);
    const auto seed = static_cast<std::uint64_t>(recipe.integer("seed"));
    torch::manual_seed(seed);
    Experiment experiment;
    experiment.task = find_task(recipe.task()).make(recipe);
    const RoutingOptions options = experiment.task->routing_options(recipe);
    const std::string& preset = recipe.text("optimizer.preset");
    torch::nn::Module& model = experiment.task->model();
    experiment.routing = preset.empty() ? route(model, options)
                                        : route_preset(describe(model), preset, options);
    experiment.optimizer = make_optimizer(model, experiment.routing);
    experiment.optimizer->set_seed(seed);
    return experiment;
  } catch (const c10::Error& error) {
    throw std::invalid_argument(error.what_without_backtrace());
  }
}

double schedule_factor(const Recipe& recipe, std::int64_t index, std::int64_t total) {
  const std::int64_t warmup = recipe.integer("optimizer.warmup_updates");
  if (index < warmup) return static_cast<double>(index + 1) / static_cast<double>(warmup);
  const std::string& schedule = recipe.text("optimizer.schedule");
  if (schedule == "constant" || total <= warmup) return 1.0;
  const double done =
      static_cast<double>(index - warmup) / static_cast<double>(total - warmup);
  const double last = recipe.number("optimizer.final_lr_factor");
  const double shape =
      schedule == "linear" ? 1.0 - done : 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  return last + (1.0 - last) * shape;
}

Recipe resumed_recipe(const std::filesystem::path& out, const TextPairs& flags,
                      const std::set<std::string>& named) {
  const std::filesystem::path file = RunPaths{out}.recipe();
  const Recipe saved = Recipe::parse(read_recipe_file(file), file.string());
  require_named(named_verifiers(saved), named, out);
  Recipe asked = saved;
  for (const auto& [key, text] : flags) {
    const auto conflict = [&](const std::string& was) {
      throw std::invalid_argument(
          "--" + key + " " + text + ": the run in " + out.string() + " has " + was +
          "; leave the flag out to continue it, or start another run with another --out");
    };
    if (key == "optimizer.overrides") {
      bool same = false;
      for (const auto& [glob, choice] : saved.overrides())
        same = same || glob + "=" + choice == text;
      if (!same) conflict("no such override");
      continue;
    }
    // an unknown key or a wrong value is an error of its own
    try {
      asked.set(key, text);
    } catch (const std::invalid_argument&) {
      if (key == "optimizer.matrices.rule" || key == "optimizer.rest.rule")
        conflict("rule " + saved.value_text(key));
      throw;
    }
    if (key.rfind("compare.grid.", 0) == 0) continue;  // no part of a single run
    if (asked.value_text(key) != saved.value_text(key)) conflict(saved.value_text(key));
  }
  return saved;
}

std::string dry_run_text(const Recipe& recipe) {
  const Experiment experiment = make_experiment(recipe);
  return recipe.to_toml() + "\n# Routing, " + std::to_string(experiment.task->updates()) +
         " updates\n" + experiment.routing.table();
}

Json evaluate_run(const std::filesystem::path& root, const TextPairs& flags,
                  const std::set<std::string>& named) {
  const RunPaths paths{root};
  std::error_code error;
  if (!std::filesystem::is_regular_file(paths.recipe(), error))
    throw std::invalid_argument("eval: " + root.string() +
                                " is no run directory: it has no recipe.toml");
  Recipe recipe = Recipe::load(paths.recipe().string());
  recipe.set_all(flags);
  require_named(named_verifiers(recipe), named, root);
  const std::vector<std::int64_t> steps = checkpoint_steps(paths.checkpoints());
  if (steps.empty() && is_comparison(root))
    throw std::invalid_argument("eval: " + root.string() +
                                " is a comparison; name one of its runs" +
                                a_run_of(root));
  if (steps.empty())
    throw std::invalid_argument("eval: " + root.string() + " has no checkpoint yet");
  make_start_policy(recipe, static_cast<int>(recipe.integer("threads")), /*quiet=*/true);
  Experiment experiment = make_experiment(recipe);
  const Checkpoint checkpoint = read_checkpoint(
      paths.checkpoints() / ("step_" + std::to_string(steps.back())), recipe.task());
  load_checkpoint_model(checkpoint, *experiment.task);
  return {{"run", root.string()},
          {"step", steps.back()},
          {"metrics", experiment.task->evaluate()}};
}

}  // namespace pion::lab
