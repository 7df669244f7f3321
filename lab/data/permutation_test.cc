// SPDX-License-Identifier: Apache-2.0
#include "lab/data/permutation.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace pion::lab {
namespace {

TEST(Permutation, VisitsEachValueOnceAndBack) {
  for (const std::uint64_t size : {1, 2, 3, 4, 5, 15, 16, 17, 1000, 1023, 1024, 1025}) {
    for (const std::uint64_t key : {0, 1, 77}) {
      const Permutation order(size, key);
      std::vector<bool> seen(size, false);
      for (std::uint64_t index = 0; index < size; ++index) {
        const std::uint64_t value = order(index);
        ASSERT_LT(value, size);
        EXPECT_FALSE(seen[value]) << "size " << size << " key " << key;
        seen[value] = true;
        EXPECT_EQ(order.inverse(value), index);
      }
    }
  }
}

TEST(Permutation, HoldsForTheLargestSizes) {
  for (const std::uint64_t size : {(std::uint64_t{1} << 62), (std::uint64_t{1} << 62) - 1,
                                   std::uint64_t{90} << 55}) {
    const Permutation order(size, 5);
    for (std::uint64_t index : {std::uint64_t{0}, size / 3, size - 1}) {
      EXPECT_LT(order(index), size);
      EXPECT_EQ(order.inverse(order(index)), index);
    }
  }
}

// Where a value lands is uniform: chi squared over 64 cells has mean 63 and standard
// deviation sqrt(2 * 63) = 11.2; 63 + 5 of them.
TEST(Permutation, SpreadsARangeEvenly) {
  constexpr std::uint64_t kSize = 64 * 1000;
  for (const std::uint64_t key : {0, 1, 2, 3}) {
    const Permutation order(kSize, key);
    std::vector<double> cells(64, 0.0);
    for (std::uint64_t index = 0; index < kSize / 10; ++index)
      cells[order(index) / 1000] += 1;
    double chi_squared = 0;
    for (const double cell : cells) chi_squared += (cell - 100) * (cell - 100) / 100;
    EXPECT_LT(chi_squared, 63 + 56) << "key " << key;
    EXPECT_GT(chi_squared, 63 - 45) << "key " << key;  // too even is no chance either
  }
}

TEST(ShuffledIndex, EveryEpochHoldsAllInAnotherOrder) {
  constexpr std::int64_t kSize = 50;
  std::vector<std::int64_t> first, second, other_seed;
  for (std::int64_t position = 0; position < kSize; ++position) {
    first.push_back(shuffled_index(position, kSize, 3));
    second.push_back(shuffled_index(kSize + position, kSize, 3));
    other_seed.push_back(shuffled_index(position, kSize, 4));
  }
  EXPECT_NE(first, second);
  EXPECT_NE(first, other_seed);
  for (const auto& order : {first, second, other_seed})
    EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 50u);
}

}  // namespace
}  // namespace pion::lab
