// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace pion::lab {

// Threads that wait for ranges of work; the calling thread takes the first share. With
// one thread there is no other thread and no synchronization.
class WorkerPool {
 public:
  // >= 1. Throws std::invalid_argument where the system has no more threads.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Calls work(begin, end) on disjoint ranges that cover [0, count); returns when all are
  // done. `work` must not throw. One caller at a time.
  void run(std::int64_t count,
           const std::function<void(std::int64_t, std::int64_t)>& work);
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  void share(int index) const;
  void wait_for_work(int index);
  void stop();

  std::vector<std::thread> workers_;
  std::atomic<std::uint64_t> round_{0};  // one more for every run(); workers sleep on it
  std::atomic<int> pending_{0};          // workers that have not finished the round
  std::atomic<bool> stopping_{false};
  const std::function<void(std::int64_t, std::int64_t)>* work_ = nullptr;
  std::int64_t count_ = 0;
};

}  // namespace pion::lab
