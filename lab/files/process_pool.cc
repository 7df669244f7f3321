// SPDX-License-Identifier: Apache-2.0
#include "lab/files/process_pool.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <stdexcept>
#include <thread>

#include "lab/files/durable_file.h"
#include "lab/files/interrupt.h"

namespace pion::lab {
namespace {

pid_t start(const ChildProcess& child) {
  std::vector<std::string> words = child.command;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const int log = open_own_file(child.log, O_WRONLY | O_CREAT | O_APPEND);
  const pid_t parent = ::getpid();
  const pid_t process = ::fork();
  if (process < 0)
    throw std::runtime_error(std::string("cannot start a process: ") +
                             std::strerror(errno));
  if (process == 0) {
    ::setpgid(0, 0);  // Ctrl-C reaches this process alone, which passes it on once
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // a killed parent leaves no runs behind
    if (::getppid() != parent) ::_exit(126);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  ::close(log);
  return process;
}

}  // namespace

bool run_children(const std::vector<ChildProcess>& children, int jobs,
                  const std::function<void(std::size_t)>& started,
                  const std::function<void(std::size_t, int)>& finished) {
  std::map<pid_t, std::size_t> running;
  std::size_t next = 0;
  bool told = false;
  while (next < children.size() || !running.empty()) {
    const bool stop = InterruptGuard::interrupted();
    if (stop && !told)
      for (const auto& [process, index] : running) ::kill(process, SIGINT);
    told = told || stop;
    if (stop && running.empty()) return false;
    while (!stop && next < children.size() &&
           running.size() < static_cast<std::size_t>(jobs)) {
      running.emplace(start(children[next]), next);
      started(next++);
    }
    bool ended = false;
    for (auto at = running.begin();
         at != running.end();) {  // only these: other children are others' business
      int status = 0;
      if (::waitpid(at->first, &status, WNOHANG) != at->first) {
        ++at;
        continue;
      }
      finished(at->second,
               WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
      at = running.erase(at);
      ended = true;
    }
    if (!ended) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

bool was_interrupted(int status) {
  return status == 128 + SIGINT || status == 128 + SIGTERM || status == 128 + SIGHUP;
}

}  // namespace pion::lab
