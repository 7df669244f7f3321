// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/tiles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "pion/kernels/loaded_tiles.h"

namespace pion {
namespace {

class Tiles : public testing::TestWithParam<TestedTiles> {
 protected:
  const TileKernels& kernels() const { return *GetParam().kernels; }
};

TEST_P(Tiles, LoadRoundsIntoBothLayoutsAndPadsWithZeros) {
  for (const auto& [rows, cols] : std::vector<std::pair<int, int>>{
           {1, 1}, {1, 33}, {31, 1}, {32, 32}, {33, 47}, {64, 96}, {5, 100}}) {
    const Matrix x = gaussian_matrix<float>(rows, cols, 7);
    const Loaded to = load(kernels(), x);
    float largest = 0;
    for (std::size_t i = 0; i < 32 * to.rows; ++i) {
      for (std::size_t j = 0; j < 32 * to.cols; ++j) {
        const auto r = static_cast<std::int64_t>(i), c = static_cast<std::int64_t>(j);
        const float value = r < rows && c < cols ? x(r, c) : 0.0f;
        largest = std::max(largest, std::abs(value));
        ASSERT_EQ(to.in_left(i, j), rounded(value)) << i << " " << j;
        ASSERT_EQ(to.in_right(i, j), rounded(value)) << i << " " << j;
        ASSERT_EQ(to.in_blocks(i, j), value) << i << " " << j;
      }
    }
    EXPECT_EQ(std::bit_cast<float>(to.largest), largest);
  }
}

TEST_P(Tiles, LoadAveragesTheMomentumAsItIsWritten) {
  constexpr std::int64_t kRows = 19, kCols = 45;
  const Matrix g = gaussian_matrix<float>(kRows, kCols, 1);
  std::vector<bfloat16> narrow(g.data.size());
  for (std::size_t i = 0; i < narrow.size(); ++i) narrow[i] = bfloat16(g.data[i]);
  for (const bool from_narrow : {false, true}) {
    for (const bool nesterov : {false, true}) {
      Matrix m = gaussian_matrix<float>(kRows, kCols + 3, 2);  // a stride of its own
      const Matrix before = m;
      Loaded to{1, 2, {}, {}, std::vector<float>(2 * kBlockSize)};
      kernels().load({.gradient = from_narrow ? static_cast<const void*>(narrow.data())
                                              : g.data.data(),
                      .gradient_is_bf16 = from_narrow,
                      .gradient_stride = kCols,
                      .momentum = m.data.data(),
                      .momentum_stride = kCols + 3,
                      .update_momentum = true,
                      .mu = 0.9f,
                      .share = 0.1f,
                      .nesterov = nesterov,
                      .scale = 4,
                      .rows = kRows,
                      .cols = kCols,
                      .blocks = to.blocks.data(),
                      .blocks_step = 2 * kBlockSize});
      for (std::int64_t i = 0; i < kRows; ++i) {
        for (std::int64_t j = 0; j < kCols + 3; ++j) {
          if (j >= kCols) {
            ASSERT_EQ(m(i, j), before(i, j)) << "beyond the block";
            continue;
          }
          const auto at = static_cast<std::size_t>(i * kCols + j);
          const float entry = from_narrow ? float(narrow[at]) : g.data[at];
          const float share = 0.1f * entry;
          const float moved = 0.9f * before(i, j) + share;
          ASSERT_EQ(m(i, j), moved);
          const float direction = nesterov ? 0.9f * moved + share : moved;
          ASSERT_EQ(
              to.in_blocks(static_cast<std::size_t>(i), static_cast<std::size_t>(j)),
              4 * direction);
        }
      }
    }
  }
}

TEST_P(Tiles, TheLargestEntryTellsWhatIsNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    Matrix x = gaussian_matrix<float>(9, 70, 3);
    x(8, 69) = bad;
    EXPECT_GE(load(kernels(), x).largest, 0x7f800000u);
  }
}

TEST_P(Tiles, TransposedLeftTilesAreRightTiles) {
  const Matrix x = gaussian_matrix<float>(16, 32, 4);
  const Loaded to = load(kernels(), x);
  std::vector<Bf16Bits> transposed(kTileSize);
  kernels().transpose(to.left.data(), 1, transposed.data());
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 32; ++j) {  // (j, i) of the right tile of X^T
      EXPECT_EQ(wide(transposed[j / 2 * 32 + i * 2 + j % 2]), to.in_left(i, j));
    }
  }
}

// n-term sums of bf16 products in f32: each of the n additions rounds the sum, which is
// at most sum |a| |b|; pairs are added in an order of the processor's own.
double sum_tolerance(double terms, double absolute_sum) {
  return (terms + 2) * 0x1p-24 * absolute_sum;
}

TEST_P(Tiles, UpdateAddsAProductToTheWeight) {
  for (const auto& [m, k, n] : std::vector<std::tuple<int, int, int>>{
           {1, 1, 1}, {17, 33, 65}, {64, 32, 96}, {100, 290, 40}, {33, 5, 600}}) {
    const Matrix a = gaussian_matrix<float>(m, k, 5), b = gaussian_matrix<float>(k, n, 6);
    const Loaded left = load(kernels(), a), right = load(kernels(), b);
    Matrix w = gaussian_matrix<float>(m, n + 2, 7);
    const Matrix before = w;
    const TileProduct product = product_of(left, right, false);
    std::vector<double> squares(item_count(product));
    const TileUpdate call{.product = product,
                          .decay = 0.5f,
                          .alpha = -2,
                          .weight = w.data.data(),
                          .weight_stride = static_cast<std::size_t>(n + 2),
                          .rows = static_cast<std::size_t>(m),
                          .cols = static_cast<std::size_t>(n),
                          .squares = squares.data()};
    for (std::size_t i = squares.size(); i-- > 0;) kernels().update(call, i, i + 1);
    double total = 0, expected_total = 0, total_tolerance = 0;
    for (const double s : squares) total += s;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n + 2; ++j) {
        if (j >= n) {
          ASSERT_EQ(w(i, j), before(i, j));
          continue;
        }
        double sum = 0, absolute = 0;
        for (std::int64_t p = 0; p < k; ++p) {
          const double term = double(rounded(a(i, p))) * double(rounded(b(p, j)));
          sum += term;
          absolute += std::abs(term);
        }
        const double tolerance = sum_tolerance(k, absolute);
        const double expected = 0.5 * double(before(i, j)) - 2 * sum;
        ASSERT_NEAR(w(i, j), expected,
                    2 * tolerance + 0x1p-23 * std::abs(expected) + 1e-30);
        expected_total += sum * sum;
        total_tolerance += 2 * std::abs(sum) * tolerance;
      }
    }
    // sums of up to 600 x 32 squares in f32
    EXPECT_NEAR(total, expected_total, total_tolerance + 1e-4 * expected_total);
    // the items in one go, on a weight like the first: the same bits
    Matrix again = before;
    TileUpdate whole = call;
    whole.weight = again.data.data();
    kernels().update(whole, 0, squares.size());
    EXPECT_EQ(again.data, w.data);
  }
}

TEST_P(Tiles, GramOfPiecesIsThatOfTheWhole) {
  const Matrix x = gaussian_matrix<float>(70, 640, 8);
  const Loaded whole = load(kernels(), x);
  std::vector<Bf16Bits> transposed(whole.left.size());
  kernels().transpose(whole.left.data(), 2 * whole.rows * whole.cols, transposed.data());
  std::vector<float> blocks(whole.rows * whole.rows * kBlockSize, NAN);
  for (std::size_t k0 = 0; k0 < whole.cols; k0 += 10) {
    const std::size_t step = whole.cols * kTileSize;
    const TileGram call{.product = {.left = whole.left.data() + k0 * kTileSize,
                                    .left_step = step,
                                    .right = transposed.data() + k0 * kTileSize,
                                    .right_step = step,
                                    .k_tiles = 10,
                                    .row_blocks = whole.rows,
                                    .col_blocks = whole.rows,
                                    .symmetric = true},
                        .blocks = blocks.data(),
                        .accumulate = k0 > 0};
    kernels().gram(call, 0, item_count(call.product));
  }
  for (std::int64_t i = 0; i < 70; ++i) {
    for (std::int64_t j = i; j < 70; ++j) {
      double sum = 0, absolute = 0;
      for (std::int64_t p = 0; p < 640; ++p) {
        const double term = double(rounded(x(i, p))) * double(rounded(x(j, p)));
        sum += term;
        absolute += std::abs(term);
      }
      const auto bi = static_cast<std::size_t>(i), bj = static_cast<std::size_t>(j);
      const float* block = blocks.data() + (bi / 32 * whole.rows + bj / 32) * kBlockSize;
      ASSERT_NEAR(block[bi % 32 * 32 + bj % 32], sum, sum_tolerance(640, absolute));
    }
  }
}

// S = alpha A B + beta C + delta I for symmetric A, B that commute: powers of one matrix.
TEST_P(Tiles, SymmetricRoundsTheResultIntoMirroredTiles) {
  constexpr std::int64_t kM = 90;
  const Matrix g = gaussian_matrix<float>(kM, kM, 9);
  Matrix a = zero_matrix<float>(kM, kM);
  for (std::int64_t i = 0; i < kM; ++i) {
    for (std::int64_t j = 0; j < kM; ++j) a(i, j) = g(i, j) + g(j, i);
  }
  const Loaded x = load(kernels(), a);
  Loaded to = x;  // its sizes
  std::vector<Bf16Bits> left_rest(x.left.size()), right_rest(x.right.size());
  std::vector<float> out(x.blocks.size());
  const TileSymmetric call{.product = product_of(x, x, true),
                           .alpha = 0.25f,
                           .beta = -1,
                           .diagonal = 3,
                           .c = x.blocks.data(),
                           .out = out.data(),
                           .left = to.left.data(),
                           .left_rest = left_rest.data(),
                           .diagonal_in_left = true,
                           .right = to.right.data(),
                           .right_rest = right_rest.data()};
  for (std::size_t i = item_count(call.product); i-- > 0;)
    kernels().symmetric(call, i, i + 1);
  Loaded rest = to;
  rest.left = left_rest;
  rest.right = right_rest;
  to.blocks = out;
  for (std::size_t i = 0; i < kM; ++i) {
    for (std::size_t j = 0; j < kM; ++j) {
      const std::size_t low = std::min(i, j), high = std::max(i, j);
      const auto r = static_cast<std::int64_t>(low), c = static_cast<std::int64_t>(high);
      double sum = 0, absolute = 0;
      for (std::int64_t p = 0; p < kM; ++p) {
        const double term = double(rounded(a(r, p))) * double(rounded(a(p, c)));
        sum += term;
        absolute += std::abs(term);
      }
      const double expected = 0.25 * sum - double(a(r, c)) + (i == j ? 3 : 0);
      const float stored = to.in_blocks(low, high);
      ASSERT_NEAR(
          stored, expected,
          sum_tolerance(kM, 0.25 * absolute) + 0x1p-22 * std::abs(expected) + 1e-6);
      for (const bool left : {true, false}) {
        const float first = left ? to.in_left(i, j) : to.in_right(i, j);
        const float second = left ? rest.in_left(i, j) : rest.in_right(i, j);
        ASSERT_EQ(first, rounded(stored)) << i << " " << j << " " << left;
        ASSERT_EQ(second, rounded(stored - first)) << i << " " << j << " " << left;
      }
    }
  }
}

TEST_P(Tiles, BothRestsMakeProductsOfSixteenBits) {
  constexpr std::int64_t kM = 64;
  const Matrix g = gaussian_matrix<float>(kM, kM, 10);
  Matrix a = zero_matrix<float>(kM, kM);
  for (std::int64_t i = 0; i < kM; ++i) {
    for (std::int64_t j = 0; j < kM; ++j) a(i, j) = g(i, j) + g(j, i);
  }
  const Loaded x = load(kernels(), a);
  Loaded to = x;
  std::vector<Bf16Bits> left_rest(x.left.size()), right_rest(x.right.size());
  // beta A alone gives the tiles of A and their rests
  const TileSymmetric split{.product = product_of(x, x, true),
                            .beta = 1,
                            .c = x.blocks.data(),
                            .left = to.left.data(),
                            .left_rest = left_rest.data(),
                            .right = to.right.data(),
                            .right_rest = right_rest.data()};
  kernels().round_gram(split, 0, x.rows);
  TileProduct product = product_of(to, to, true);
  product.terms = Terms::kBothRests;
  product.left_rest = left_rest.data();
  product.right_rest = right_rest.data();
  std::vector<float> out(x.blocks.size());
  const TileSymmetric call{.product = product, .alpha = 1, .out = out.data()};
  kernels().symmetric(call, 0, item_count(product));
  to.blocks = out;
  for (std::int64_t i = 0; i < kM; ++i) {
    for (std::int64_t j = i; j < kM; ++j) {
      double sum = 0, absolute = 0;
      for (std::int64_t p = 0; p < kM; ++p) {
        const double term = double(a(i, p)) * double(a(p, j));
        sum += term;
        absolute += std::abs(term);
      }
      // each operand is off by 2^-9 of 2^-9 or less, and rest times rest is left out
      const double tolerance = sum_tolerance(3 * kM, absolute) + 3 * 0x1p-18 * absolute;
      ASSERT_NEAR(to.in_blocks(static_cast<std::size_t>(i), static_cast<std::size_t>(j)),
                  sum, tolerance);
    }
  }
}

TEST_P(Tiles, ThePeakIsOfProductsThatAreDone) {
  float last = 0;
  EXPECT_EQ(kernels().multiply_peak(3, &last), 3 * 2.0 * 32 * 256 * 32);
  EXPECT_EQ(last, 3 * 256.0f);  // exact: integers below 2^24
}

TEST(TilesTarget, WithoutBf16IsAnError) {
  for (const CpuTarget target :
       {CpuTarget::kPortable, CpuTarget::kAvx2, CpuTarget::kAvx512}) {
    EXPECT_THROW(tile_kernels(target), std::invalid_argument);
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Tiles);
INSTANTIATE_TEST_SUITE_P(Targets, Tiles, testing::ValuesIn(tested_tiles()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace pion
