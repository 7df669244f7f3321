// SPDX-License-Identifier: Apache-2.0
// The subcommands of `pion`, one file each.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace pion::apps {

struct Invocation {
  std::vector<std::string> words;  // after the subcommand
  std::string command;             // the whole line, as a shell takes it
  std::filesystem::path program;   // of this process
};

// kNothingLearned: a run that diverged, collapsed or trained nothing.
constexpr int kSuccess = 0, kBadInput = 1, kFailed = 2, kNothingLearned = 3,
              kInterrupted = 130;

// Return the exit code. Throw std::invalid_argument for bad input, anything else for a
// failure.
int train(const Invocation& invocation);
int compare(const Invocation& invocation);
int eval(const Invocation& invocation);
int report(const Invocation& invocation);
int inspect(const Invocation& invocation);
int recipes(const Invocation& invocation);
int optimizers(const Invocation& invocation);
int bench(const Invocation& invocation);
int generate(const Invocation& invocation);

}  // namespace pion::apps
