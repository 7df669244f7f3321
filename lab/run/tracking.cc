// SPDX-License-Identifier: Apache-2.0
#include "lab/run/tracking.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <utility>
#include <vector>

#include "lab/files/python_program.h"

namespace pion::lab {
namespace {

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Starts python with these arguments; `input` becomes its standard input.
pid_t start(const std::vector<std::string>& arguments, int input) {
  std::vector<std::string> words = {python_program()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  std::string path = python_folder("pion_track").string();
  if (const char* more = std::getenv("PYTHONPATH")) path += std::string(":") + more;
  const pid_t child = ::fork();
  if (child < 0)
    throw std::runtime_error(std::string("tracking: cannot start a process: ") +
                             std::strerror(errno));
  if (child > 0) return child;
  // Ctrl-C goes to the whole group; the mirror ends after the run, not before
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
  ::dup2(input, STDIN_FILENO);
  ::dup2(STDERR_FILENO, STDOUT_FILENO);  // a library's chatter is no output of pion
  ::setenv("PYTHONPATH", path.c_str(), 1);
  ::execvp(pointers[0], pointers.data());
  ::_exit(127);
}

}  // namespace

void check_tracker(const std::string& library) {
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int status = wait_for(start({"-m", "pion_track", "--check", library}, nothing));
  ::close(nothing);
  if (status == 0) return;
  if (status == 127)
    throw std::invalid_argument("--track " + library + ": no Python at " +
                                python_program() +
                                "; run script/bootstrap, or name one in PION_PYTHON");
  throw std::invalid_argument("--track " + library + ": " + python_program() +
                              " cannot import it; install it with `" + python_program() +
                              " -m pip install " + library + "`");
}

Tracker::Tracker(const std::string& library, const std::filesystem::path& run)
    : library_(library) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw std::runtime_error(std::string("tracking: cannot make a pipe: ") +
                             std::strerror(errno));
  child_ = start({"-m", "pion_track", library, run.string()}, ends[0]);
  ::close(ends[0]);
  pipe_ = ends[1];
}

std::string Tracker::finish() {
  if (pipe_ >= 0) ::close(std::exchange(pipe_, -1));
  if (child_ < 0) return "";
  const int status = wait_for(std::exchange(child_, -1));
  if (status == 0) return "";
  return "tracking: " + library_ + " ended with status " + std::to_string(status) +
         "; metrics.jsonl has everything";
}

Tracker::~Tracker() { finish(); }

}  // namespace pion::lab
