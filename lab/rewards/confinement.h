// SPDX-License-Identifier: Apache-2.0
// How the lab's Python children are kept from the machine. docs/security.md says what is
// promised.
#pragma once

#include <string>
#include <vector>

#include "lab/rewards/worker.h"

namespace pion::lab {

// What a confined child may do besides reading files and computing.
enum class Permission {
  kNothing,
  kPrograms,  // start other programs, where bubblewrap keeps them inside; a user's code
};

struct ConfinedCommand {
  WorkerCommand command;
  bool confined = true;       // false after let_workers_run_unconfined()
  std::string no_bubblewrap;  // why the filter of system calls stands alone; "" if not
};

// The command that runs `script` (a file and its arguments) by the lab's Python. Tries
// bubblewrap once, which takes 10 ms: a read-only file system, no network, processes of
// its own. Where it does not work, a filter of system calls stands alone
// (python/pion/confined.py); where that does not work either the child ends and says so.
// `gigabytes` of memory, > 0.
ConfinedCommand confined_python(const std::vector<std::string>& script,
                                Permission permission, double gigabytes);

// The command line said --unconfined: holds for commands made from now on, in this
// process. No file can say it.
void let_workers_run_unconfined(bool allowed = true);
bool workers_run_unconfined();

// What follows the complaint of a child: how it ran, and the remedy.
std::string confinement_note(const ConfinedCommand& command);

}  // namespace pion::lab
