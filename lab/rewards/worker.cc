// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "lab/files/printable.h"

namespace pion::lab {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kLongestLine = 1 << 20;     // a verdict has about 100 bytes
constexpr std::size_t kErrorsShown = 600;         // bytes of standard error in a message
constexpr std::size_t kErrorsPassedOn = 1 << 14;  // a request: more is a loop that prints
constexpr double kPatience = 1.0;                 // seconds for a child to end by itself

int milliseconds_until(Clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, 60000));
}

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(std::min(seconds, 1e6)));
}

void close_and_forget(int& descriptor) {
  if (descriptor >= 0) ::close(std::exchange(descriptor, -1));
}

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);  // npos + 1 is 0
}

// Signals as a fresh process has them, a session of its own.
struct Attributes {
  posix_spawnattr_t value;
  Attributes() {
    ::posix_spawnattr_init(&value);
    sigset_t defaults, none;
    ::sigemptyset(&defaults);
    ::sigemptyset(&none);
    for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP, SIGALRM})
      ::sigaddset(&defaults, signal);
    ::posix_spawnattr_setsigdefault(&value, &defaults);
    ::posix_spawnattr_setsigmask(&value, &none);
    ::posix_spawnattr_setflags(
        &value, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  }
  ~Attributes() { ::posix_spawnattr_destroy(&value); }
};

// "NAME=value" for each search path that is set.
std::vector<std::string> search_paths() {
  std::vector<std::string> paths;
  for (const char* name : {"PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"})
    if (const char* value = std::getenv(name))
      paths.push_back(std::string(name) + "=" + value);
  return paths;
}

// As exec wants them: they must outlive the result.
std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

std::string Worker::spawn() {
  int sockets[2], pipes[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return std::string("cannot make a socket: ") + std::strerror(errno);
  if (::pipe2(pipes, O_CLOEXEC) != 0) {
    const std::string reason = std::strerror(errno);
    ::close(sockets[0]), ::close(sockets[1]);
    return "cannot make a pipe: " + reason;
  }
  std::vector<std::string> paths = search_paths();
  const std::vector<char*> words = pointers_to(command_.words);
  const std::vector<char*> bare = pointers_to(paths);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, sockets[1], STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, sockets[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, pipes[1], STDERR_FILENO);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  const Attributes attributes;
  // no fork: the copy of a large process's page tables would take longer than Python's
  // start
  const int error =
      ::posix_spawnp(&child_, words[0], &actions, &attributes.value, words.data(),
                     command_.bare_environment ? bare.data() : environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(sockets[1]), ::close(pipes[1]);
  socket_ = sockets[0], errors_ = pipes[0];
  received_.clear(), last_errors_.clear();
  if (error == 0) return "";
  child_ = -1;
  close_and_forget(socket_), close_and_forget(errors_);
  return "cannot run " + command_.words[0] + ": " + std::strerror(error);
}

Exchange Worker::start(double timeout_seconds, std::string_view request) {
  stop();
  const std::string problem = spawn();
  if (!problem.empty()) return {Failure::kDidNotStart, "", problem};
  if (request.empty()) return wait_for_line("", timeout_seconds);
  return ask(request, timeout_seconds);
}

Exchange Worker::ask(std::string_view request, double timeout_seconds) {
  if (!running()) return {Failure::kDidNotStart, "", "is not running"};
  return wait_for_line(std::string(request) + "\n", timeout_seconds);
}

bool Worker::receive() {
  std::array<char, 1 << 14> chunk;
  const ssize_t n = ::recv(socket_, chunk.data(), chunk.size(), MSG_DONTWAIT);
  if (n > 0) received_.append(chunk.data(), static_cast<std::size_t>(n));
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

void Worker::read_errors() {
  std::array<char, 1 << 12> chunk;
  const ssize_t n = ::read(errors_, chunk.data(), chunk.size());
  if (n < 0 && errno == EINTR) return;
  if (n <= 0) return close_and_forget(errors_);
  const auto size = static_cast<std::size_t>(n);
  last_errors_.append(chunk.data(), size);
  if (last_errors_.size() > kErrorsShown)
    last_errors_.erase(0, last_errors_.size() - kErrorsShown);
  if (passed_on_ + size > kErrorsPassedOn) return;
  passed_on_ += size;
  const std::string text = printable({chunk.data(), size});
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) passed_on_ = kErrorsPassedOn;
}

// Both directions at once: a child that writes before it reads must not block us.
Exchange Worker::wait_for_line(std::string_view to_send, double timeout_seconds) {
  const auto deadline = after(timeout_seconds);
  passed_on_ = 0;
  while (true) {
    const std::size_t end = received_.find('\n');
    if (end != std::string::npos) {
      if (end + 1 < received_.size() || !to_send.empty())
        return failed(Failure::kRubbish, "sent more than one line for one request");
      std::string line = received_.substr(0, end);
      received_.clear();
      return {Failure::kNone, std::move(line), ""};
    }
    if (received_.size() > kLongestLine)
      return failed(Failure::kRubbish, "sent a line of more than a megabyte");
    std::array<pollfd, 2> watched = {
        {{socket_, static_cast<short>(POLLIN | (to_send.empty() ? 0 : POLLOUT)), 0},
         {errors_, POLLIN, 0}}};  // a descriptor of -1 is ignored
    const int left = milliseconds_until(deadline);
    if (left == 0) return failed(Failure::kHung, "gave no answer in time");
    if (::poll(watched.data(), watched.size(), left) < 0) {
      if (errno == EINTR) continue;
      return failed(Failure::kDied, std::string("poll: ") + std::strerror(errno));
    }
    if (watched[1].revents != 0) read_errors();
    if ((watched[0].revents & POLLOUT) != 0) {
      const ssize_t n =
          ::send(socket_, to_send.data(), to_send.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) to_send.remove_prefix(static_cast<std::size_t>(n));
      if (n < 0 && errno != EAGAIN && errno != EINTR) return failed(Failure::kDied, "");
    }
    if ((watched[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !receive())
      return failed(Failure::kDied, "");
  }
}

// The child's wait status; it has ended afterwards, and so have its children.
int Worker::end_child(bool kill_at_once) {
  close_and_forget(socket_);
  int status = 0;
  const auto deadline = after(kPatience);
  while (true) {
    if (kill_at_once || Clock::now() >= deadline) {
      ::kill(-child_, SIGKILL);
      while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
      }
      break;
    }
    const pid_t ended = ::waitpid(child_, &status, WNOHANG);
    if (ended == child_ || (ended < 0 && errno != EINTR)) {
      ::kill(-child_, SIGKILL);  // grandchildren; the group outlives its leader
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  child_ = -1;
  return status;
}

Exchange Worker::failed(Failure failure, const std::string& what) {
  const int status = end_child(/*kill_at_once=*/failure != Failure::kDied);
  for (pollfd watched{errors_, POLLIN, 0}; errors_ >= 0 && ::poll(&watched, 1, 0) > 0;
       watched.fd = errors_)
    read_errors();
  close_and_forget(errors_);
  std::string detail = what;
  if (failure == Failure::kDied)
    detail = WIFEXITED(status)
                 ? "ended with status " + std::to_string(WEXITSTATUS(status))
                 : std::string("was ended by a signal: ") + ::strsignal(WTERMSIG(status));
  const std::string shown = last_line(last_errors_);
  if (!shown.empty()) detail += "; its last words: " + shown;
  return {failure, "", detail};
}

void Worker::stop() {
  if (running()) end_child(/*kill_at_once=*/false);
  close_and_forget(errors_);
}

}  // namespace pion::lab
