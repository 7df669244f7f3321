// SPDX-License-Identifier: Apache-2.0
#include "lab/envs/worker_pool.h"

#include <exception>
#include <stdexcept>
#include <string>

namespace pion::lab {

WorkerPool::WorkerPool(int threads) {
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("WorkerPool: threads must be in [1, 1024], got " +
                                std::to_string(threads));
  }
  try {
    for (int index = 1; index < threads; ++index) {
      workers_.emplace_back([this, index] { wait_for_work(index); });
    }
  } catch (const std::exception& error) {  // no threads left, or no memory
    const std::size_t started = workers_.size() + 1;
    stop();
    throw std::invalid_argument(
        "WorkerPool: threads must be a number that the system can start, got " +
        std::to_string(threads) + "; it ends at " + std::to_string(started) + " (" +
        std::string(error.what()) +
        "): lower env.threads, or raise the limit of memory or processes");
  }
}

WorkerPool::~WorkerPool() { stop(); }

void WorkerPool::stop() {
  stopping_ = true;
  ++round_;
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::share(int index) const {
  const std::int64_t n = threads();
  (*work_)(count_* index / n, count_ * (index + 1) / n);
}

void WorkerPool::run(std::int64_t count,
                     const std::function<void(std::int64_t, std::int64_t)>& work) {
  work_ = &work;
  count_ = count;
  if (!workers_.empty()) {
    pending_ = static_cast<int>(workers_.size());
    ++round_;  // publishes work_ and count_
    round_.notify_all();
  }
  share(0);
  for (int left = pending_; left != 0; left = pending_) pending_.wait(left);
}

void WorkerPool::wait_for_work(int index) {
  for (std::uint64_t seen = 0;;) {
    round_.wait(seen);
    if (stopping_) return;
    ++seen;  // run() waits for every worker, so no round is missed
    share(index);
    if (--pending_ == 0) pending_.notify_one();
  }
}

}  // namespace pion::lab
