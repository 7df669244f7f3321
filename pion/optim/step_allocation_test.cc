// SPDX-License-Identifier: Apache-2.0
// A binary of its own: it counts every operator new of the process.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "pion/optim/step_all.h"
#include "tests/random_numbers.h"

namespace {
std::atomic<std::size_t> allocations{0};

void* allocated(std::size_t size, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace

void* operator new(std::size_t size) {
  return allocated(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocated(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace pion {
namespace {

// Arrays of one parameter under an element-wise or a matrix rule.
struct Arrays {
  std::vector<float> weight, gradient, first, second;
  std::vector<bfloat16> narrow;
  Arrays(std::size_t n, std::uint64_t seed)
      : weight(gaussian(n, seed)),
        gradient(gaussian(n, seed + 1)),
        first(n),
        second(n),
        narrow(weight.begin(), weight.end()) {}
  ParameterUpdate update(const Rule& rule, std::int64_t rows, bool bf16) {
    ParameterUpdate u;
    u.rule = &rule;
    u.rows = rows, u.cols = static_cast<std::int64_t>(weight.size()) / rows;
    u.weight_type = bf16 ? ElementType::kBf16 : ElementType::kF32;
    u.low_precision = LowPrecision::kStochastic;
    u.weight = bf16 ? static_cast<void*>(narrow.data()) : weight.data();
    u.gradient = gradient.data();
    u.momentum = u.exp_avg = first.data();
    u.exp_avg_sq = second.data();
    return u;
  }
};

void expect_none_after_the_first_step(bool with_matrices, Executor& executor) {
  const Rule adamw = AdamWRule{}, sgd = SgdRule{}, pion = PionRule{};
  std::vector<Arrays> arrays;
  for (const std::size_t n : {100, 9'000, 200'000, 4'096}) arrays.emplace_back(n, n);
  std::vector<ParameterUpdate> updates;
  for (Arrays& a : arrays) {
    const bool matrix = &a == &arrays.back();
    if (matrix && !with_matrices) continue;
    updates.push_back(a.update(matrix               ? pion
                               : updates.size() % 2 ? sgd
                                                    : adamw,
                               matrix ? 64 : 1, updates.size() == 1));
  }
  StepWorkspaces workspaces;
  const std::size_t before = allocations;
  step_all(updates, executor, workspaces);
  const std::size_t first = allocations;
  EXPECT_GT(first, before);  // the counter counts
  for (int step = 2; step < 20; ++step) {
    for (ParameterUpdate& u : updates) u.step = step;
    step_all(updates, executor, workspaces);
  }
  EXPECT_EQ(allocations, first);
}

TEST(StepAllocation, NoneAfterTheFirstStep) {
  SerialExecutor serial;
  expect_none_after_the_first_step(/*with_matrices=*/true, serial);
}

// A matrix rule's workspace grows on the thread that meets it first, so not with
// matrices.
TEST(StepAllocation, NoneAfterTheFirstStepOnThreads) {
  const auto pool = make_thread_pool(3);
  expect_none_after_the_first_step(/*with_matrices=*/false, *pool);
}

}  // namespace
}  // namespace pion
