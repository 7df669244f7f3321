// SPDX-License-Identifier: Apache-2.0
// runs/NAME/ and what lies in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "lab/run/recipe.h"

namespace pion::lab {

struct RunPaths {
  std::filesystem::path root;
  std::filesystem::path recipe() const { return root / "recipe.toml"; }
  std::filesystem::path routing() const { return root / "routing.toml"; }
  std::filesystem::path environment() const { return root / "environment.json"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path model() const { return root / "model"; }
  std::filesystem::path sample() const { return root / "sample.json"; }
  std::filesystem::path result() const { return root / "result.json"; }
  std::filesystem::path report() const { return root / "report.html"; }
};

// runs/<recipe>-<optimizer>-<seed>.
std::filesystem::path default_run_directory(const std::string& recipe_name,
                                            const Recipe& recipe);

// Throws std::invalid_argument if something lies there already.
void refuse_existing(const std::filesystem::path& root);

// Whether `pion compare` wrote the directory: runs lie in it, one directory each.
bool is_comparison(const std::filesystem::path& root);

// Holds a run directory for this process while it lives; made if missing. Throws
// std::invalid_argument if another process has it.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& root);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // Throws std::runtime_error unless the directory still has its name: what is written
  // into one that was removed or renamed is lost.
  void check() const;

 private:
  std::filesystem::path root_;
  int descriptor_ = -1;
};

// Whether a process holds the directory by a RunLock.
bool is_locked(const std::filesystem::path& root);

// environment.json's text: versions, CPU, threads, commit, command.
std::string environment_json(const Recipe& recipe, const std::string& command);

// "pion 0.1.0 (commit 1e8ae31, LibTorch 2.13.0)".
std::string version_text();

// The command, or one word of it, as a shell takes it.
std::string shell_command(int count, const char* const* arguments);
std::string shell_word(const std::string& word);

}  // namespace pion::lab
