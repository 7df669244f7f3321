// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/confinement.h"

#include <atomic>

#include "lab/files/python_program.h"

namespace pion::lab {
namespace {

constexpr double kProbeSeconds = 10;
std::atomic<bool> unconfined = false;

// A read-only view of all files, /dev with the harmless devices alone, own processes, no
// capabilities. The worker is a session leader already, so no terminal is shared.
const std::vector<std::string> kBubblewrap = {
    "bwrap",        "--unshare-all", "--ro-bind", "/",     "/",          "--dev", "/dev",
    "--remount-ro", "/dev",          "--proc",    "/proc", "--cap-drop", "ALL",   "--"};

WorkerCommand inside(const std::vector<std::string>& words) {
  WorkerCommand command(kBubblewrap);
  command.words.insert(command.words.end(), words.begin(), words.end());
  command.bare_environment = true;
  return command;
}

// "" or why bubblewrap does not run here.
std::string probe_bubblewrap() {
  Worker worker(inside({"echo", "works"}));
  const Exchange exchange = worker.start(kProbeSeconds);
  if (exchange.failure != Failure::kNone) return exchange.detail;
  return exchange.line == "works" ? "" : "printed \"" + exchange.line + "\"";
}

}  // namespace

void let_workers_run_unconfined(bool allowed) { unconfined = allowed; }
bool workers_run_unconfined() { return unconfined; }

ConfinedCommand confined_python(const std::vector<std::string>& script,
                                Permission permission, double gigabytes) {
  std::vector<std::string> words = {python_program()};
  if (unconfined) {
    words.insert(words.end(), script.begin(), script.end());
    return {.command = WorkerCommand(words), .confined = false};
  }
  const std::string launcher = "pion/confined.py";
  words.push_back((python_folder(launcher) / launcher).string());
  words.insert(words.end(), {"--gigabytes", std::to_string(gigabytes)});
  const std::string problem = probe_bubblewrap();
  if (problem.empty()) words.emplace_back("--inside");
  if (problem.empty() && permission == Permission::kPrograms)
    words.emplace_back("--programs");
  words.insert(words.end(), script.begin(), script.end());
  if (problem.empty()) return {.command = inside(words)};
  ConfinedCommand alone{.command = WorkerCommand(words), .no_bubblewrap = problem};
  alone.command.bare_environment = true;
  return alone;
}

std::string confinement_note(const ConfinedCommand& command) {
  if (!command.confined) return "";
  const std::string how =
      command.no_bubblewrap.empty()
          ? ""
          : " by a filter of system calls alone, since bubblewrap does not work here (" +
                command.no_bubblewrap + "; script/bootstrap installs it)";
  return "; it runs confined" + how +
         ", without network and writable files (docs/security.md), unless --unconfined";
}

}  // namespace pion::lab
