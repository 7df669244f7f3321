// SPDX-License-Identifier: Apache-2.0
// A binary of its own: it counts every operator new of the process.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "pion/spectral/block_map.h"
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

TEST(Allocation, BlockMapsKeepWhatTheyHave) {
  SpectralMap map = {.sequence = high_pass_sequence(2, 5),
                     .normalization = Normalization::kSpectral,
                     .precision = Precision::kAccurate};
  const auto pool = make_thread_pool(2);
  for (const CpuTarget target : supported_cpu_targets()) {
    const auto block = make_block_map(target);
    std::size_t after_first = 0;
    for (int call = 0; call < 3; ++call) {
      // wide, tall, and nearly square both ways
      for (const auto& [rows, cols] : {std::pair{60, 150}, std::pair{150, 60},
                                       std::pair{80, 100}, std::pair{100, 80}}) {
        static const RandomMatrix<float> input = gaussian_matrix<float>(150, 150, 43);
        static RandomMatrix<float> weight = gaussian_matrix<float>(150, 150, 44);
        BlockSource source;
        source.gradient = input.view().block(0, 0, rows, cols);
        ASSERT_TRUE(block->load(source, map, 1.0, true, *pool));
        block->apply(map, *pool);
        block->update(weight.view().block(0, 0, rows, cols), 0.99, -0.1, *pool);
      }
      if (call == 0) after_first = allocations;
    }
    EXPECT_EQ(allocations, after_first) << cpu_target_name(target);
  }
}

}  // namespace
}  // namespace pion
