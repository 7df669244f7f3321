// SPDX-License-Identifier: Apache-2.0
// The `pion` command: finds the subcommand, turns exceptions into messages and exit
// codes.
#include <c10/util/Exception.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <iostream>
#include <stdexcept>

#include "apps/subcommands.h"
#include "lab/files/interrupt.h"
#include "lab/files/printable.h"
#include "lab/files/shown_text.h"
#include "lab/run/run_directory.h"
#include "pion/optim/rule.h"

namespace pion::apps {
namespace {

struct Subcommand {
  const char* name;
  const char* description;
  int (*run)(const Invocation&);
};

constexpr Subcommand kSubcommands[] = {
    {"train", "train one recipe", train},
    {"compare", "tune several optimizers on one recipe, then compare them on fresh seeds",
     compare},
    {"eval", "evaluate the newest checkpoint of a run", eval},
    {"generate", "continue a prompt by a language model", generate},
    {"report", "write report.html of a run or a comparison", report},
    {"inspect", "routing table and spectra of a safetensors model", inspect},
    {"recipes", "list the recipes", recipes},
    {"optimizers", "list the update rules with their keys, and the routing presets",
     optimizers},
    {"bench", "time optimizer steps on this machine next to LibTorch's", bench},
};

void print_help() {
  std::cout
      << "pion: trains policies with matrix-aware optimizers and compares them\n\n"
         "Usage: pion SUBCOMMAND ...    pion SUBCOMMAND --help    pion --version\n\n";
  for (const Subcommand& each : kSubcommands)
    std::cout << "  " << each.name << std::string(12 - std::string(each.name).size(), ' ')
              << each.description << "\n";
  std::cout << "\nExit codes: 0 success, 1 bad input, 2 failed run, 3 a run that "
               "diverged, collapsed or\ntrained nothing, 130 interrupted and saved\n";
}

int unknown(const std::string& word) {
  std::vector<std::string> names = {"--help", "--version"};
  for (const Subcommand& each : kSubcommands) names.emplace_back(each.name);
  const std::string near = nearest_name(word, names);
  std::cerr << "pion: unknown subcommand \"" << lab::printable(word) << "\""
            << (near.empty() ? "; see pion --help" : "; did you mean \"" + near + "\"?")
            << "\n";
  return kBadInput;
}

int dispatch(const Subcommand& subcommand, const Invocation& invocation) {
  std::string message;
  int code = kFailed;
  try {
    return subcommand.run(invocation);
  } catch (const lab::Interrupted& error) {
    message = error.what();
    code = kInterrupted;
  } catch (const std::invalid_argument& error) {
    message = error.what();
    code = kBadInput;
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  } catch (const std::exception& error) {
    message = error.what();
  }
  std::cout.flush();
  // whatever was quoted, a message has to be read
  std::cerr << "pion " << subcommand.name << ": "
            << lab::printable(lab::shortened(message, 8000)) << "\n";
  return code;
}

// Freed memory stays with the process: a training step frees and takes the same tensors
// again, and clearing pages anew cost 7 % of it. Tensors of 64 MiB and more go back.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

int run(int count, char** arguments) {
  if (count < 2) {
    print_help();
    return kBadInput;
  }
  const std::string word = arguments[1];
  if (word == "--help" || word == "-h" || word == "help") {
    print_help();
    return kSuccess;
  }
  if (word == "--version") {
    std::cout << lab::version_text() << "\n";
    return kSuccess;
  }
  Invocation invocation;
  invocation.words.assign(arguments + 2, arguments + count);
  invocation.command = lab::shell_command(count, arguments);
  std::error_code error;
  invocation.program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) invocation.program = arguments[0];
  if (word != "bench") keep_freed_memory();  // which times peers as they come
  for (const Subcommand& each : kSubcommands)
    if (word == each.name) return dispatch(each, invocation);
  return unknown(word);
}

}  // namespace
}  // namespace pion::apps

int main(int count, char** arguments) { return pion::apps::run(count, arguments); }
