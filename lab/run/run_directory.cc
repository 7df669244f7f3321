// SPDX-License-Identifier: Apache-2.0
#include "lab/run/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <torch/version.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "lab/files/json_text.h"
#include "lab/run/commit.h"  // written by the build: PION_COMMIT
#include "pion/version.h"

namespace pion::lab {
namespace fs = std::filesystem;
namespace {

#ifdef __clang__
constexpr const char* kCompiler = "";  // its version begins with its name
#else
constexpr const char* kCompiler = "gcc ";
#endif

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown";
}

std::string time_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

fs::path default_run_directory(const std::string& recipe_name, const Recipe& recipe) {
  return fs::path("runs") /
         (recipe_name + "-" + std::string(rule_name(recipe.matrices())) + "-" +
          std::to_string(recipe.integer("seed")));
}

void refuse_existing(const fs::path& root) {
  std::error_code error;
  if (!fs::exists(root, error)) return;
  if (fs::is_directory(root, error) && fs::is_empty(root, error)) return;
  throw std::invalid_argument("run directory " + root.string() +
                              " exists; continue it with --resume, or "
                              "choose another with --out");
}

bool is_comparison(const fs::path& root) {
  std::error_code error;
  return fs::is_regular_file(root / "compare.json", error);
}

RunLock::RunLock(const fs::path& root) : root_(root) {
  std::error_code error;
  fs::create_directories(root, error);
  if (error)
    throw std::invalid_argument("cannot make run directory " + root.string() + ": " +
                                error.message());
  // the directory itself is locked: no file is left behind
  descriptor_ = ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0)
    throw std::invalid_argument("cannot open run directory " + root.string() + ": " +
                                std::strerror(errno));
  // a run that was just told to stop saves first: 3 s is longer than most updates
  for (int attempt = 0; attempt < 30; ++attempt) {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    if (errno != EWOULDBLOCK) return;  // a file system without locks
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  ::close(descriptor_);
  throw std::invalid_argument("run directory " + root.string() +
                              " is in use by another pion process; wait for it, "
                              "or choose another with --out");
}

RunLock::~RunLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void RunLock::check() const {
  struct stat held{}, named{};
  if (descriptor_ < 0 || ::fstat(descriptor_, &held) != 0) return;
  if (::stat(root_.c_str(), &named) == 0 && named.st_dev == held.st_dev &&
      named.st_ino == held.st_ino)
    return;
  throw std::runtime_error("run directory " + root_.string() +
                           " was removed or renamed while the run went on; what came "
                           "after that is not saved. Start it again, or continue a "
                           "renamed one with --resume --out and its new name");
}

bool is_locked(const fs::path& root) {
  const int descriptor = ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = ::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(descriptor);
  return locked;
}

std::string environment_json(const Recipe& recipe, const std::string& command) {
  utsname system{};
  uname(&system);
  const nlohmann::ordered_json json = {
      {"pion", PION_VERSION_STRING},
      {"commit", PION_COMMIT},
      {"libtorch", TORCH_VERSION},
      {"compiler", std::string(kCompiler) + __VERSION__},
      {"system",
       std::string(system.sysname) + " " + system.release + " " + system.machine},
      {"cpu", cpu_name()},
      {"cpus", std::thread::hardware_concurrency()},
      {"threads", recipe.integer("threads")},
      {"started", time_text()},
      {"command", command}};
  return json_text(json, 2);
}

std::string version_text() {
  return std::string("pion ") + PION_VERSION_STRING + " (commit " + PION_COMMIT +
         ", LibTorch " + TORCH_VERSION + ")";
}

std::string shell_word(const std::string& word) {
  const bool plain =
      !word.empty() &&
      word.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:+@%") ==
          std::string::npos;
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word)
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string shell_command(int count, const char* const* arguments) {
  std::string command;
  for (int i = 0; i < count; ++i) command += (i ? " " : "") + shell_word(arguments[i]);
  return command;
}

}  // namespace pion::lab
