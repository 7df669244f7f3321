// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>

namespace pion {

// Deals tasks 0, 1, 2, ... to threads like cards, and lets who is done take from the
// others. A thread so meets the same tasks in every round, with its data still in the
// cache of its core.
class TaskLists {
 public:
  explicit TaskLists(int threads)
      : threads_(threads), next_(std::make_unique<Counter[]>(threads)) {}

  // Not while a thread takes tasks.
  void deal(int tasks) {
    tasks_ = tasks;
    for (int thread = 0; thread < threads_; ++thread) {
      next_[thread].task.store(thread, std::memory_order_relaxed);
    }
  }

  // Calls work(task) for tasks that nobody has taken, until there are none.
  template <class Work>
  void take(int thread, Work work) {
    for (int other = 0; other < threads_; ++other) {
      std::atomic<int>& next = next_[(thread + other) % threads_].task;
      while (next.load(std::memory_order_relaxed) < tasks_) {
        const int task = next.fetch_add(threads_, std::memory_order_relaxed);
        if (task < tasks_) work(task);
      }
    }
  }

  // Nobody takes any more.
  void cancel() {
    for (int thread = 0; thread < threads_; ++thread) {
      next_[thread].task.store(tasks_, std::memory_order_relaxed);
    }
  }

 private:
  struct alignas(64) Counter {  // a cache line of its own
    std::atomic<int> task{0};
  };
  int threads_, tasks_ = 0;
  std::unique_ptr<Counter[]> next_;
};

}  // namespace pion
