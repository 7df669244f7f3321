// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>

#include "pion/kernels/gemm.h"
#include "tests/gemm_reference.h"

namespace pion {
namespace {

// New threads for every run; counts what it was given.
class FreshThreads : public Executor {
 public:
  explicit FreshThreads(int threads) : threads_(threads) {}
  int threads() const override { return threads_; }
  void run(int tasks, FunctionRef<void(int, int)> work) override {
    most_tasks = std::max(most_tasks, tasks);
    std::atomic<int> next{0};
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads_; ++thread) {
      all.emplace_back([&, thread] {
        for (int task = next++; task < tasks; task = next++) work(task, thread);
      });
    }
    for (std::thread& thread : all) thread.join();
  }
  int most_tasks = 0;

 private:
  int threads_;
};

class GemmThreads : public testing::TestWithParam<CpuTarget> {
 protected:
  // compute(memory) returns all that it computed.
  template <class Compute>
  void expect_same_bits(int tasks, const std::string& what, Compute compute) {
    std::vector<float> scratch = poisoned<float>(5 * kGemmScratch);
    const std::vector<double> expected = compute(GemmMemory<float>(scratch));
    SerialExecutor serial;
    EXPECT_EQ(compute({scratch, serial}), expected) << what;
    for (const int threads : {2, 3, 5}) {
      FreshThreads executor(threads);
      EXPECT_EQ(compute({scratch, executor}), expected) << what << ", " << threads;
      EXPECT_GE(executor.most_tasks, tasks) << what;
    }
  }
};

std::vector<double> numbers(const RandomMatrix<float>& x) {
  return {x.data.begin(), x.data.end()};
}

TEST_P(GemmThreads, SymmetricProductsHaveTheSameBits) {
  for (const auto& [m, k, tasks] : {std::array{3, 20, 1},
                                    {128, 130, 1},
                                    {129, 300, 6},
                                    {300, 70, 15},
                                    {600, 40, 15}}) {
    const RandomMatrix<float> x = gaussian_matrix<float>(m, k, 1),
                              a = symmetric_matrix<float>(m, 2),
                              b = symmetric_matrix<float>(m, 3);
    const std::string what = "m = " + std::to_string(m);
    expect_same_bits(tasks, what, [&](GemmMemory<float> memory) {
      RandomMatrix<float> out = zero_matrix<float>(m, m);
      symmetric_product<float>(0.7f, x.view(), 0.1f, a.view(), out.view(), memory,
                               GetParam());
      return numbers(out);
    });
    expect_same_bits(tasks, what, [&](GemmMemory<float> memory) {
      RandomMatrix<float> out = zero_matrix<float>(m, m);
      commuting_product<float>(0.7f, a.view(), b.view(), 0.1f, a.view(), 3.0f, out.view(),
                               memory, GetParam());
      return numbers(out);
    });
  }
}

TEST_P(GemmThreads, ProductsHaveTheSameBits) {
  for (const auto& [m, n, k, tasks] :
       {std::array{5, 9, 3, 1}, {64, 896, 64, 4}, {400, 300, 290, 4}, {800, 20, 33, 3}}) {
    const RandomMatrix<float> a = gaussian_matrix<float>(m, k, 1),
                              b = gaussian_matrix<float>(k, n, 2),
                              c = gaussian_matrix<float>(m, n, 3);
    expect_same_bits(tasks, std::to_string(m), [&](GemmMemory<float> memory) {
      RandomMatrix<float> out = zero_matrix<float>(m, n);
      product<float>(0.7f, a.view(), b.view(), 0.1f, c.view(), out.view(), memory,
                     GetParam());
      return numbers(out);
    });
  }
}

TEST_P(GemmThreads, UpdatesAndTheirSquaresHaveTheSameBits) {
  for (const auto& [rows, cols, tasks] :
       {std::array{5, 9, 1}, {64, 896, 4}, {896, 64, 3}, {300, 600, 3}}) {
    const RandomMatrix<float> q = symmetric_matrix<float>(std::min(rows, cols), 1),
                              x = gaussian_matrix<float>(rows, cols, 2),
                              w = gaussian_matrix<float>(rows, cols, 3);
    expect_same_bits(tasks, std::to_string(rows), [&](GemmMemory<float> memory) {
      RandomMatrix<float> weight = w;
      const double squares = product_update<float>(0.7f, q.view(), x.view(), 0.9f,
                                                   weight.view(), memory, GetParam());
      std::vector<double> all = numbers(weight);
      all.push_back(squares);
      return all;
    });
  }
}

TEST_P(GemmThreads, ScratchMustBeThereForEveryThread) {
  std::vector<float> scratch(3 * kGemmScratch - 1);
  FreshThreads executor(3);
  const RandomMatrix<float> x = gaussian_matrix<float>(4, 4, 1);
  RandomMatrix<float> out = zero_matrix<float>(4, 4);
  EXPECT_THROW(symmetric_product<float>(1, x.view(), 0, {}, out.view(),
                                        {scratch, executor}, GetParam()),
               std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmThreads, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
