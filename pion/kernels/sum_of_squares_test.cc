// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/sum_of_squares.h"

#include <gtest/gtest.h>

#include "tests/random_matrix.h"

namespace pion {
namespace {

// The definition, in long double. Every target is held to this one loop.
template <class T>
double reference(const std::vector<T>& x) {
  long double total = 0.0;
  for (const T value : x) total += static_cast<long double>(value) * value;
  return static_cast<double>(total);
}

class SumOfSquares : public testing::TestWithParam<CpuTarget> {};

TEST_P(SumOfSquares, AgreesWithTheDefinitionAroundEveryBlockAndTail) {
  for (const std::size_t n : {0, 1, 7, 16, 17, 4095, 4096, 4097, 8192, 1 << 18}) {
    const std::vector<float> x = gaussian(n, /*seed=*/17);
    const double expected = reference(x);
    // 4096 / (4 * 4 lanes) = 256 terms a chain with 4 lanes, fewer with more; 2 roundings
    // each at most, 3 to join the chains; all terms positive
    const double tolerance = 515 * 0x1p-24 * expected;
    EXPECT_NEAR(sum_of_squares(x, GetParam()), expected, tolerance) << "n = " << n;
    // typically the roundings cancel: 3e-9 was measured over 4096^2, 100 times that is
    // allowed
    EXPECT_NEAR(sum_of_squares(x, GetParam()), expected, 3e-7 * expected) << "n = " << n;
  }
}

TEST_P(SumOfSquares, AgreesWithTheDefinitionInDouble) {
  for (const std::size_t n : {0, 1, 7, 4095, 4096, 4097, 1 << 18}) {
    const std::vector<double> x = gaussian<double>(n, /*seed=*/18);
    const double expected = reference(x);
    // 512 terms a chain with 2 lanes, and 64 block totals of 2 lanes: 2 roundings each
    EXPECT_NEAR(sum_of_squares(x, GetParam()), expected, 2 * 700 * 0x1p-53 * expected)
        << "n = " << n;
  }
}

TEST_P(SumOfSquares, NeedsNoAlignment) {
  const std::vector<float> x = gaussian(10'000, /*seed=*/19);
  for (const std::size_t offset : {1, 2, 3, 5}) {
    const std::vector<float> moved(x.begin() + offset, x.end());
    EXPECT_EQ(sum_of_squares(std::span(x).subspan(offset), GetParam()),
              sum_of_squares(moved, GetParam()));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SumOfSquares,
                         testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
