// SPDX-License-Identifier: Apache-2.0
#include "lab/run/start_policy.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "lab/files/durable_file.h"
#include "lab/files/interrupt.h"
#include "lab/rewards/verifier.h"
#include "lab/run/named_verifiers.h"
#include "lab/run/recipe_files.h"
#include "lab/run/run.h"
#include "lab/run/run_directory.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

fs::path policies() {
  const char* chosen = std::getenv("PION_BASES");
  return chosen != nullptr && *chosen != '\0' ? fs::path(chosen)
                                              : fs::path("runs") / "bases";
}

// LibTorch's products add up in an order that depends on the threads, so a policy is that
// of their number. It is in the text once, for the policies that this one begins with
// too; one thread, the default, has no line.
std::string without_threads(const std::string& toml) {
  std::istringstream lines(toml);
  std::string kept;
  for (std::string line; std::getline(lines, line);)
    if (line.rfind("threads = ", 0) != 0) kept += line + "\n";
  return kept;
}

// FNV-1a, 64 bits.
std::string hash_text(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return std::string(digits).substr(0, 12);
}

// "" for a file that cannot be read: the task says so later.
std::string hash_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (file && content << file.rdbuf()) return hash_text(content.str());
  return "";
}

// What the policy is made of: its own recipe, the problems, and those that it begins with
// in turn.
std::string ingredients(const Recipe& recipe, std::int64_t threads, int depth = 0) {
  if (depth > 16)
    throw std::invalid_argument(
        "model.start: recipes begin with one another in a circle");
  std::string text = without_threads(recipe.to_toml());
  if (depth == 0 && threads > 1) text += "# threads " + std::to_string(threads) + "\n";
  const TaskInfo& info = find_task(recipe.task());
  if (const std::string file = info.data ? info.data(recipe) : ""; !file.empty())
    text += "# problems " + hash_file(file) + "\n";
  if (const std::string earlier = info.start ? info.start(recipe) : ""; !earlier.empty())
    text += ingredients(Recipe::load(earlier), threads, depth + 1);
  return text;
}

fs::path policy_run(const std::string& name, const Recipe& recipe, std::int64_t threads) {
  return policies() / (find_recipe(name).stem().string() + "-" +
                       hash_text(ingredients(recipe, threads)));
}

bool is_made(const fs::path& run) {
  const fs::path result = RunPaths{run}.result();
  return fs::exists(result) && fs::exists(run / "model" / "config.json") &&
         read_ending(result).kind == EndingKind::kComplete;
}

// Waits for a lock that dies with its process; throws Interrupted after a signal.
class WaitingLock {
 public:
  WaitingLock(const fs::path& path, const std::string& waiting) {
    fs::create_directories(path.parent_path());
    descriptor_ = open_own_file(path, O_CREAT | O_RDWR);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    if (!waiting.empty()) std::printf("%s\n", waiting.c_str()), std::fflush(stdout);
    // asked again and again: a call that waits would be begun anew after a signal
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      const bool held = errno == EWOULDBLOCK || errno == EINTR;
      const std::string reason = std::strerror(errno);
      if (held && !InterruptGuard::interrupted()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        continue;
      }
      ::close(descriptor_);
      if (!held) throw std::runtime_error("cannot lock " + path.string() + ": " + reason);
      throw Interrupted("interrupted while waiting for " + path.string() +
                        "; run the same command again");
    }
  }
  ~WaitingLock() { ::close(descriptor_); }
  WaitingLock(const WaitingLock&) = delete;
  WaitingLock& operator=(const WaitingLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace

fs::path start_policy_folder(const std::string& name, std::int64_t threads) {
  const fs::path run = policy_run(name, Recipe::load(name), threads);
  return is_made(run) ? run / "model" : fs::path();
}

void make_start_policy(const Recipe& recipe, int threads, bool quiet) {
  const TaskInfo& info = find_task(recipe.task());
  const std::string name = info.start ? info.start(recipe) : "";
  if (name.empty()) return;
  Recipe start = Recipe::load(name);
  if (!find_task(start.task()).start)
    throw std::invalid_argument("model.start: recipe \"" + name + "\" is of task \"" +
                                start.task() + "\", which makes no language model");
  if (const TextPairs found = named_verifiers(start); !found.empty())
    throw std::invalid_argument(
        "model.start: recipe \"" + name + "\" has " + found[0].first + " = \"" +
        found[0].second + "\"; a start policy's must be " + kBuiltInVerifiers +
        ", since one recipe names the other: train it by itself, and give its model as "
        "model.folder");
  const fs::path run = policy_run(name, start, threads);
  if (is_made(run)) return;
  const InterruptGuard guard;
  const WaitingLock lock(
      run.string() + ".lock",
      quiet ? "" : "waiting for " + run.string() + ", which another process is training");
  if (is_made(run)) return;
  if (!quiet) {
    std::printf("start policy: training %s once, kept in %s\n", name.c_str(),
                run.c_str());
    std::fflush(stdout);
  }
  start.set("threads", std::to_string(threads));
  const bool begun = fs::exists(RunPaths{run}.recipe());
  const RunOutcome outcome = train(
      begun ? resumed_recipe(run, {}) : start,
      {.out = run, .resume = begun, .quiet = quiet, .command = "start policy " + name});
  if (!outcome.complete)
    throw Interrupted("start policy " + name +
                      ": interrupted and saved; run the same command again to continue");
  if (outcome.ending.kind != EndingKind::kComplete)
    throw std::runtime_error("start policy " + name + " is " +
                             std::string(ending_name(outcome.ending.kind)) + ": " +
                             outcome.ending.reason +
                             "; mend its recipe. What was left is in " + run.string());
  if (!is_made(run))
    throw std::runtime_error("start policy " + name + ": " + run.string() +
                             " is complete but has no model; remove it to train again");
  if (!quiet) {
    std::printf("start policy: %s ready, accuracy %.3f\n", name.c_str(), outcome.score);
    std::fflush(stdout);
  }
}

}  // namespace pion::lab
