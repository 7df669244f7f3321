// SPDX-License-Identifier: Apache-2.0
// A child process that answers one JSON line with one JSON line, and may do anything
// else.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pion::lab {

enum class Failure { kNone, kDidNotStart, kHung, kDied, kRubbish, kRaised, kNotAsked };

// What became of one exchange: the line without its end, or what went wrong.
struct Exchange {
  Failure failure = Failure::kNone;
  std::string line;    // the answer; empty on failure
  std::string detail;  // on failure: what happened, with the end of standard error
};

struct WorkerCommand {
  WorkerCommand(std::vector<std::string> program) : words(std::move(program)) {}
  std::vector<std::string> words;  // a program, found by PATH, and its arguments
  // Of our environment it gets the search paths alone: PATH, PYTHONPATH, PYTHONHOME and
  // LD_LIBRARY_PATH.
  bool bare_environment = false;
};

// The child's standard input and output are one socket, its standard error a pipe that is
// passed on to ours; nothing else that is open here is open there. It leads its own
// session: Ctrl-C does not reach it, it has no terminal, and it is killed with all its
// children. One thread at a time.
class Worker {
 public:
  explicit Worker(WorkerCommand command) : command_(std::move(command)) {}
  ~Worker() { stop(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  bool running() const { return child_ >= 0; }
  // Starts the child, sends it `request` if it is one that does not speak first, and
  // waits for its first line, which is the answer.
  Exchange start(double timeout_seconds, std::string_view request = "");
  // Sends a line and waits for one. A child that fails is killed: start it again. Throws
  // nothing; `request` holds no line end.
  Exchange ask(std::string_view request, double timeout_seconds);
  // Closes the socket, upon which a child in order ends; kills it a second later.
  void stop();

 private:
  Exchange wait_for_line(std::string_view to_send, double timeout_seconds);
  Exchange failed(Failure failure, const std::string& what);
  std::string spawn();  // "" or what went wrong
  bool receive();       // false at the end of the child's output
  void read_errors();
  int end_child(bool kill_at_once);

  WorkerCommand command_;
  pid_t child_ = -1;
  int socket_ = -1, errors_ = -1;
  std::string received_;       // of the child's output, not yet a whole line
  std::string last_errors_;    // the end of its standard error
  std::size_t passed_on_ = 0;  // bytes of standard error passed on since the last request
};

}  // namespace pion::lab
