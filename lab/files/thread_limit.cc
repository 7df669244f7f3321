// SPDX-License-Identifier: Apache-2.0
#include "lab/files/thread_limit.h"

#include <atomic>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

namespace pion::lab {

void require_threads(int count, const std::string& key) {
  std::atomic<bool> done{false};
  std::vector<std::jthread> started;  // joined at the end, whatever happens
  std::string reason;
  try {
    for (int i = 1; i < count; ++i) started.emplace_back([&] { done.wait(false); });
  } catch (const std::exception& error) {  // no threads left, or no memory
    reason = error.what();
  }
  const std::size_t started_count = started.size() + 1;
  done = true;
  done.notify_all();
  if (!reason.empty())
    throw std::invalid_argument(
        key + ": must be a number of threads that the system can start, got " +
        std::to_string(count) + "; it ends at " + std::to_string(started_count) + " (" +
        reason + "): lower " + key + ", or raise the limit of memory or processes");
}

}  // namespace pion::lab
