// SPDX-License-Identifier: Apache-2.0
// `pion compare`: tunes every optimizer's learning rate, then runs the best one on fresh
// seeds.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "lab/run/recipe.h"

namespace pion::lab {

struct CompareOptions {
  std::string recipe_file;        // of the comparison, copied into it
  TextPairs flags;                // set on top of it, for every run
  std::filesystem::path out;      // the comparison's directory
  std::filesystem::path program;  // `pion` itself, which every run is a process of
  std::set<std::string> named;    // verifiers that the flags name, see named_verifiers.h
  int jobs = 1;                   // runs at once
  bool resume = false;
  std::string command;  // how the user would repeat it; for compare.json
};

enum class CompareOutcome {
  kComplete,
  kInterrupted,
  kFailed
};  // kFailed: of some final runs, or of a whole grid. Those that diverged did not fail.

// Prints what happens, writes compare.json after every run, the final table and
// report.html. Throws std::invalid_argument before anything is written if the input is
// bad.
CompareOutcome compare(const CompareOptions& options);

// What would run; nothing is written. `flags` are in the recipe already.
std::string comparison_text(const Recipe& recipe, const TextPairs& flags);

}  // namespace pion::lab
