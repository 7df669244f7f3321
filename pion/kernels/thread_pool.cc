// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pion/executor.h"
#include "pion/task_lists.h"

namespace pion {
namespace {

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Waits until done(value), first busily for some microseconds, then asleep. Returns the
// value.
template <class Done>
std::uint32_t await(const std::atomic<std::uint32_t>& value, Done done) {
  constexpr int kSpins = 200;  // 2-10 us: less than a sleep and a wake-up cost
  for (int spin = 0; spin < kSpins; ++spin) {
    const std::uint32_t seen = value.load(std::memory_order_acquire);
    if (done(seen)) return seen;
    pause();
  }
  for (;;) {
    const std::uint32_t seen = value.load(std::memory_order_acquire);
    if (done(seen)) return seen;
    value.wait(seen, std::memory_order_acquire);
  }
}

// One word holds the state of the job: its number (upper 16 bits), whether workers may
// still join it, and how many are in it. A worker that wakes late finds the job closed
// and is not waited for, so that more threads than idle cores cost little.
constexpr std::uint32_t kOpen = 1u << 15;
constexpr std::uint32_t kInside = kOpen - 1;
constexpr std::uint32_t kNumber = 1u << 16;
std::uint32_t number_of(std::uint32_t state) { return state >> 16; }

class ThreadPool : public Executor {
 public:
  explicit ThreadPool(int threads) : lists_(threads) {
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
    } catch (const std::exception& error) {  // the system has no more threads
      const std::size_t started = workers_.size() + 1;
      stop();
      throw std::runtime_error("make_thread_pool: the system must start " +
                               std::to_string(threads) + " threads, got " +
                               std::to_string(started) + " (" + error.what() +
                               "); ask for fewer, or raise its limits");
    }
  }
  ~ThreadPool() override { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const override { return static_cast<int>(workers_.size()) + 1; }

  void run(int tasks, FunctionRef<void(int, int)> work) override {
    if (workers_.empty() || tasks <= 1) {
      for (int task = 0; task < tasks; ++task) work(task, 0);
      return;
    }
    work_ = &work;
    lists_.deal(tasks);
    failed_.store(false, std::memory_order_relaxed);
    // nobody is inside: only the number and kOpen change
    const std::uint32_t before = state_.load(std::memory_order_relaxed);
    state_.store(((before & ~kInside) + kNumber) | kOpen, std::memory_order_release);
    state_.notify_all();
    take_tasks(0);
    state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    await(state_, [](std::uint32_t state) { return (state & kInside) == 0; });
    if (failed_.load(std::memory_order_relaxed)) {
      std::rethrow_exception(std::exchange(failure_, nullptr));
    }
  }

 private:
  void serve(int thread) {
    std::uint32_t last = 0;  // number of the job that this worker was in
    for (;;) {
      std::uint32_t seen = await(state_, [&](std::uint32_t state) {
        return ((state & kOpen) != 0 && number_of(state) != last) || stopping_.load();
      });
      if (stopping_.load()) return;
      if (!state_.compare_exchange_strong(seen, seen + 1, std::memory_order_acq_rel)) {
        continue;
      }
      last = number_of(seen);
      take_tasks(thread);
      const std::uint32_t left = state_.fetch_sub(1, std::memory_order_acq_rel) - 1;
      if ((left & (kOpen | kInside)) == 0) state_.notify_all();
    }
  }

  void take_tasks(int thread) {
    try {
      lists_.take(thread, [&](int task) { (*work_)(task, thread); });
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
      lists_.cancel();
    }
  }

  void stop() {
    stopping_.store(true);
    state_.fetch_add(kNumber);  // changes the word that they wait for
    state_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  alignas(64) std::atomic<std::uint32_t> state_{0};
  alignas(64) std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
  FunctionRef<void(int, int)>* work_ = nullptr;
  TaskLists lists_;
  std::vector<std::thread> workers_;
};

}  // namespace

std::unique_ptr<Executor> make_thread_pool(int threads) {
  constexpr int kMost = static_cast<int>(kInside);
  if (threads < 1 || threads > kMost) {
    throw std::invalid_argument("make_thread_pool: threads must be in [1, " +
                                std::to_string(kMost) + "], got " +
                                std::to_string(threads));
  }
  return std::make_unique<ThreadPool>(threads);
}

}  // namespace pion
