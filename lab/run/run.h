// SPDX-License-Identifier: Apache-2.0
// One run: from a recipe to a trained model in a run directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "lab/run/ending.h"
#include "lab/run/recipe.h"
#include "lab/run/task.h"

namespace pion::lab {

struct RunOptions {
  std::filesystem::path out;  // the run directory
  bool resume = false;        // continue after the newest checkpoint
  bool quiet = false;         // no progress
  bool report = true;         // write report.html at the end
  std::string command;        // how the user would repeat it; for environment.json
};

struct RunOutcome {
  bool complete = false;  // false: interrupted and saved
  std::int64_t step = 0;  // updates done
  double score = 0;       // of the final evaluation
  Ending ending;          // of a complete run: whether it learned
};

// What a recipe makes. Throws std::invalid_argument, as for a parameter that cannot be
// routed.
struct Experiment {
  std::unique_ptr<Task> task;
  Routing routing;
  std::unique_ptr<Optimizer> optimizer;
};
Experiment make_experiment(const Recipe& recipe);

// Factor on all learning rates in update `index` of `total`.
double schedule_factor(const Recipe& recipe, std::int64_t index, std::int64_t total);

// Trains, evaluates, saves. With `resume` the recipe must be the run directory's own; see
// resumed_recipe. Throws std::invalid_argument before anything is written if the input is
// bad, another exception if the run fails; what was saved stays. A policy that diverged,
// even so far that an update throws, is an ending and no failure.
RunOutcome train(const Recipe& recipe, const RunOptions& options);

// The recipe of a run directory, which must agree with every flag given now, and whose
// verifiers that run code must be among `named`, see named_verifiers.h. Throws
// std::invalid_argument.
Recipe resumed_recipe(const std::filesystem::path& out, const TextPairs& flags,
                      const std::set<std::string>& named = {});

// The resolved recipe and the routing table; nothing is written.
std::string dry_run_text(const Recipe& recipe);

// Evaluates the newest checkpoint of a run. `flags` may set keys of the evaluation;
// `named` as above.
Json evaluate_run(const std::filesystem::path& root, const TextPairs& flags,
                  const std::set<std::string>& named = {});

}  // namespace pion::lab
