// SPDX-License-Identifier: Apache-2.0
// Child processes, a few at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace pion::lab {

struct ChildProcess {
  std::vector<std::string> command;  // the first word is the program's path
  std::filesystem::path log;         // takes standard output and error
};

// Runs all of them, `jobs` at once, in order. `started` and `finished` get the index and,
// at the end, the exit status (128 + signal for a killed one). On SIGINT, SIGTERM or
// SIGHUP (see InterruptGuard) no new one starts, the running ones get SIGINT and are
// waited for. Returns whether all have run.
bool run_children(const std::vector<ChildProcess>& children, int jobs,
                  const std::function<void(std::size_t)>& started,
                  const std::function<void(std::size_t, int)>& finished);

// Whether an exit status is that of `pion` after a signal, saved (130) or not yet begun.
bool was_interrupted(int status);

}  // namespace pion::lab
