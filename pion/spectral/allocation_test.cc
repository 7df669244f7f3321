// SPDX-License-Identifier: Apache-2.0
// A binary of its own: it counts every operator new of the process.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "pion/spectral/spectral_map.h"
#include "tests/random_matrix.h"

namespace {
std::size_t allocations = 0;

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
void* operator new[](std::size_t size) {
  return allocated(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocated(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return allocated(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace pion {
namespace {

template <class T>
void expect_no_allocation_after_the_first_call(Normalization normalization) {
  const SpectralMap map = {.sequence = cutoff_sequence(0.1, 6),
                           .normalization = normalization};
  const RandomMatrix<T> input = converted<T>(gaussian_matrix<float>(80, 150, 41));
  RandomMatrix<T> output = zero_matrix<T>(80, 150);
  std::vector<MatrixViewOf<const T>> from;
  std::vector<MatrixViewOf<T>> to;
  for (int head = 0; head < 3; ++head) {
    from.push_back(input.view().block(0, 50 * head, 80, 50));
    to.push_back(output.view().block(0, 50 * head, 80, 50));
  }
  std::vector<SpectrumStatistics> statistics(3);
  SpectralWorkspace workspace;
  const std::size_t before = allocations;
  ASSERT_TRUE(apply_spectral_map<T>(map, from, to, workspace, statistics));
  const std::size_t first = allocations;
  EXPECT_GT(first, before);  // the counter counts
  for (int call = 0; call < 3; ++call) {
    ASSERT_TRUE(apply_spectral_map<T>(map, from, to, workspace, statistics));
  }
  EXPECT_EQ(allocations, first);
}

TEST(Allocation, NoneAfterTheFirstCall) {
  for (const auto normalization : {Normalization::kFrobenius, Normalization::kSpectral}) {
    expect_no_allocation_after_the_first_call<float>(normalization);
    expect_no_allocation_after_the_first_call<double>(normalization);
    expect_no_allocation_after_the_first_call<bfloat16>(normalization);
  }
}

}  // namespace
}  // namespace pion
