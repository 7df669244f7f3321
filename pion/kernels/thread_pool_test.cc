// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "pion/executor.h"
#include "tests/thrown_message.h"

namespace pion {
namespace {

class ThreadPools : public testing::TestWithParam<int> {};

TEST_P(ThreadPools, CallEveryTaskOnce) {
  const auto pool = make_thread_pool(GetParam());
  EXPECT_EQ(pool->threads(), GetParam());
  for (const int tasks : {0, 1, 2, 3, 7, 100, 1000}) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(tasks));
    pool->run(tasks, [&](int task, int) { ++calls[static_cast<std::size_t>(task)]; });
    for (const auto& count : calls) EXPECT_EQ(count, 1) << tasks << " tasks";
  }
}

TEST_P(ThreadPools, GiveAThreadsNumberToOneCallAtATime) {
  const auto pool = make_thread_pool(GetParam());
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(GetParam()));
  std::atomic<int> wrong{0};
  for (int round = 0; round < 200; ++round) {
    pool->run(50, [&](int, int thread) {
      if (thread < 0 || thread >= GetParam()) {
        ++wrong;
        return;
      }
      auto& mine = busy[static_cast<std::size_t>(thread)];
      if (mine.fetch_add(1) != 0) ++wrong;
      mine.fetch_sub(1);
    });
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(ThreadPools, ShowWhatTheTasksWroteWhenTheyReturn) {
  const auto pool = make_thread_pool(GetParam());
  std::vector<int> numbers(64, 0);  // plain memory: a race shows under ThreadSanitizer
  for (int round = 1; round <= 2000; ++round) {
    pool->run(64, [&](int task, int) { ++numbers[static_cast<std::size_t>(task)]; });
    if (round % 500 != 0) continue;
    for (const int number : numbers) ASSERT_EQ(number, round);
    // long enough for the workers to fall asleep: the next job must wake them
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_P(ThreadPools, CarryAnExceptionToTheCallerAndGoOn) {
  const auto pool = make_thread_pool(GetParam());
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> called{0};
    const std::string message = message_of([&] {
      pool->run(1000, [&](int task, int) {
        ++called;
        if (task == 3) throw std::invalid_argument("task 3");
      });
    });
    EXPECT_EQ(message, "task 3");
    EXPECT_GE(called, 1);
    int sum = 0;
    pool->run(1, [&](int, int) { sum = 1; });
    EXPECT_EQ(sum, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPools, testing::Values(1, 2, 3, 7));

TEST(ThreadPool, RunsTasksAtTheSameTime) {
  // each of two tasks waits until the other has begun: in order they would never end
  const auto pool = make_thread_pool(2);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> begun{0};
    pool->run(2, [&](int, int) {
      ++begun;
      while (begun.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(begun, 2);
  }
}

TEST(ThreadPool, NeedsOneThread) {
  for (const int threads : {0, -1, 1 << 20}) {
    expect_says(message_of([&] { make_thread_pool(threads); }),
                "got " + std::to_string(threads));
  }
}

TEST(ThreadPool, OfOneThreadCallsInOrder) {
  const auto pool = make_thread_pool(1);
  std::vector<int> order;
  pool->run(4, [&](int task, int thread) {
    EXPECT_EQ(thread, 0);
    order.push_back(task);
  });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

}  // namespace
}  // namespace pion
