// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "pion/kernels/loaded_tiles.h"

namespace pion {
namespace {

class TilesUpdate : public testing::TestWithParam<TestedTiles> {
 protected:
  const TileKernels& kernels() const { return *GetParam().kernels; }
};

TEST_P(TilesUpdate, UpdateAddsXAndMeasuresTheSum) {
  const std::int64_t m = 40, k = 50, n = 300;  // two items of columns, edges everywhere
  const Matrix a = gaussian_matrix<float>(m, k, 5), b = gaussian_matrix<float>(k, n, 6);
  const Loaded left = load(kernels(), a), right = load(kernels(), b);
  const TileProduct product = product_of(left, right, false);
  const Matrix x = gaussian_matrix<float>(m, n, 8),
               other = gaussian_matrix<float>(m, n, 9);
  // zeros where the matrices end
  const std::vector<float> x_blocks = load(kernels(), x).blocks,
                           other_blocks = load(kernels(), other).blocks;
  const std::size_t items = item_count(product);
  std::vector<double> squares(items), inner(items);
  Matrix plain = gaussian_matrix<float>(m, n, 7), sum = plain;
  TileUpdate call{.product = product,
                  .decay = 0,
                  .alpha = 1,
                  .weight = plain.data.data(),
                  .weight_stride = static_cast<std::size_t>(n),
                  .rows = static_cast<std::size_t>(m),
                  .cols = static_cast<std::size_t>(n),
                  .squares = squares.data()};
  kernels().update(call, 0, items);
  call.weight = sum.data.data();
  call.x = x_blocks.data(), call.beta = -1.5f;
  call.other = other_blocks.data(), call.inner = inner.data();
  kernels().update(call, 0, items);
  double expected_squares = 0, expected_inner = 0, absolute = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const float o = std::fma(-1.5f, x(i, j), plain(i, j));  // one rounding
      ASSERT_EQ(sum(i, j), o) << i << ", " << j;
      expected_squares += double(o) * double(o);
      expected_inner += double(o) * double(other(i, j));
      absolute += std::abs(double(o) * double(other(i, j)));
    }
  }
  const auto total = [](const std::vector<double>& sums) {
    double all = 0;
    for (const double s : sums) all += s;
    return all;
  };
  // f32 sums of 32 x 256 / 16 terms a lane
  EXPECT_NEAR(total(squares), expected_squares, 512 * 0x1p-24 * expected_squares);
  EXPECT_NEAR(total(inner), expected_inner, 1024 * 0x1p-24 * absolute);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TilesUpdate);
INSTANTIATE_TEST_SUITE_P(Targets, TilesUpdate, testing::ValuesIn(tested_tiles()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace pion
