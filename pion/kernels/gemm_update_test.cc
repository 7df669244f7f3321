// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "pion/kernels/gemm.h"
#include "tests/gemm_reference.h"

namespace pion {
namespace {

struct UpdateShape {
  std::int64_t rows, cols;  // of X and W; Q has the smaller side
};

constexpr UpdateShape kUpdateShapes[] = {{1, 1},     {1, 40},    {40, 1},   {5, 9},
                                         {16, 64},   {64, 16},   {33, 70},  {70, 33},
                                         {64, 257},  {385, 48},  {49, 600}, {257, 260},
                                         {300, 257}, {260, 530}, {530, 260}};

// Q X or X Q in double, and the bound of its rounding: everything without W.
template <class T>
GemmReference direction(const RandomMatrix<T>& q, const RandomMatrix<T>& x) {
  return x.rows == q.rows ? gemm_reference<T>(1, q, x, 0, x)
                          : gemm_reference<T>(1, x, q, 0, x);
}

template <class T>
double square_error(const GemmReference& expected, std::int64_t k) {
  // each entry v is off by e = tolerance * absolute, its square by 2 |v| e + e^2; then
  // 384 squares and sums a lane, and the totals in double
  double error = 0.0;
  for (std::size_t i = 0; i < expected.value.data.size(); ++i) {
    const double v = std::abs(expected.value.data[i]),
                 e = gemm_tolerance<T>(k) * expected.absolute.data[i];
    error += 2 * v * e + e * e + 400 * std::numeric_limits<T>::epsilon() / 2 * v * v;
  }
  return error;
}

class GemmUpdate : public testing::TestWithParam<CpuTarget> {
 protected:
  template <class T>
  void update_agrees() {
    std::vector<T> scratch = poisoned<T>(kGemmScratch);
    for (const UpdateShape shape : kUpdateShapes) {
      const std::int64_t m = std::min(shape.rows, shape.cols);
      const RandomMatrix<T> q = symmetric_matrix<T>(m, 21),
                            x = gaussian_matrix<T>(shape.rows, shape.cols, 22),
                            old = gaussian_matrix<T>(shape.rows, shape.cols, 23);
      const GemmReference step = direction(q, x);
      double square = 0.0;
      for (const double v : step.value.data) square += v * v;
      for (const T decay : {T{1}, T{0.9}}) {
        RandomMatrix<T> weight = old;
        const double actual = product_update<T>(T{-0.02}, q.view(), x.view(), decay,
                                                weight.view(), scratch, GetParam());
        GemmReference expected = step;
        for (std::size_t i = 0; i < old.data.size(); ++i) {
          const double kept = double{decay} * old.data[i];
          expected.value.data[i] = double{T{-0.02}} * step.value.data[i] + kept;
          expected.absolute.data[i] = 0.02 * step.absolute.data[i] + std::abs(kept);
        }
        const std::string what =
            std::to_string(shape.rows) + " x " + std::to_string(shape.cols);
        expect_close(weight, expected, m, what);
        EXPECT_NEAR(actual, square, square_error<T>(step, m)) << what;
      }
    }
  }
};

TEST_P(GemmUpdate, AgreesWithTheDefinitionForWideAndTall) { update_agrees<float>(); }
TEST_P(GemmUpdate, AgreesWithTheDefinitionInDouble) { update_agrees<double>(); }

TEST_P(GemmUpdate, StridesChangeNothingAndGapsStayUntouched) {
  std::vector<float> scratch = poisoned<float>(kGemmScratch);
  for (const UpdateShape shape :
       {UpdateShape{20, 75}, UpdateShape{75, 20}, UpdateShape{64, 512}}) {
    const std::int64_t m = std::min(shape.rows, shape.cols);
    const RandomMatrix<float> q = symmetric_matrix<float>(m, 31),
                              x = gaussian_matrix<float>(shape.rows, shape.cols, 32);
    RandomMatrix<float> expected = gaussian_matrix<float>(shape.rows, shape.cols, 33);
    RandomMatrix<float> out = widened(expected, 7);
    const RandomMatrix<float> wide_q = widened(q, 3), wide_x = widened(x, 5);
    const double square = product_update<float>(0.1f, q.view(), x.view(), 0.5f,
                                                expected.view(), scratch, GetParam());
    EXPECT_EQ(square,
              product_update<float>(0.1f, wide_q.view().block(0, 0, m, m),
                                    wide_x.view().block(0, 0, shape.rows, shape.cols),
                                    0.5f, out.view().block(0, 0, shape.rows, shape.cols),
                                    scratch, GetParam()));
    for (std::int64_t i = 0; i < shape.rows; ++i) {
      for (std::int64_t j = 0; j < shape.cols; ++j) ASSERT_EQ(out(i, j), expected(i, j));
      for (std::int64_t j = 0; j < 7; ++j)
        ASSERT_TRUE(std::isnan(out(i, shape.cols + j)));
    }
  }
}

// A pass over the rest must not be needed to know that a step was finite.
TEST_P(GemmUpdate, SquaresTellOfANonFiniteEntryAndOtherColumnsStayClean) {
  std::vector<float> scratch(kGemmScratch);
  const RandomMatrix<float> q = symmetric_matrix<float>(30, 41);
  RandomMatrix<float> x = gaussian_matrix<float>(30, 100, 42);
  RandomMatrix<float> clean = gaussian_matrix<float>(30, 100, 43), weight = clean;
  EXPECT_TRUE(std::isfinite(product_update<float>(1, q.view(), x.view(), 1, clean.view(),
                                                  scratch, GetParam())));
  x(3, 55) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(product_update<float>(1, q.view(), x.view(), 1, weight.view(),
                                               scratch, GetParam())));
  for (std::int64_t i = 0; i < 30; ++i) {
    for (std::int64_t j = 0; j < 100; ++j) {
      if (j == 55) {
        EXPECT_TRUE(std::isnan(weight(i, j)));
      } else {
        ASSERT_EQ(weight(i, j), clean(i, j));
      }
    }
  }
}

TEST_P(GemmUpdate, WithDecayZeroTheWeightIsNotRead) {
  std::vector<float> scratch(kGemmScratch);
  const RandomMatrix<float> q = symmetric_matrix<float>(9, 1),
                            x = gaussian_matrix<float>(9, 20, 2);
  RandomMatrix<float> weight = zero_matrix<float>(9, 20);
  for (float& w : weight.data) w = std::numeric_limits<float>::quiet_NaN();
  product_update<float>(1, q.view(), x.view(), 0, weight.view(), scratch, GetParam());
  expect_close(weight, direction(q, x), 9, "decay 0");
}

TEST_P(GemmUpdate, EmptyAndMismatchedShapes) {
  std::vector<float> scratch(kGemmScratch);
  const RandomMatrix<float> q = symmetric_matrix<float>(4, 1),
                            x = gaussian_matrix<float>(4, 7, 2);
  RandomMatrix<float> weight = x;
  EXPECT_EQ(product_update<float>(1, {}, {}, 1, {}, scratch, GetParam()), 0.0);
  const auto call = [&](ConstMatrixView of_q, ConstMatrixView of_x, MatrixView of_weight,
                        std::size_t elements) {
    product_update<float>(1, of_q, of_x, 1, of_weight, std::span(scratch).first(elements),
                          GetParam());
  };
  const ConstMatrixView whole = q.view(), wide = x.view();
  EXPECT_THROW(call(whole.block(0, 0, 4, 3), wide, weight.view(), kGemmScratch),
               std::invalid_argument);
  EXPECT_THROW(call(whole, wide.block(0, 0, 3, 7), weight.view(), kGemmScratch),
               std::invalid_argument);
  EXPECT_THROW(call(whole, wide, weight.view().block(0, 0, 4, 6), kGemmScratch),
               std::invalid_argument);
  EXPECT_THROW(call(whole, wide, weight.view(), kGemmScratch - 1), std::invalid_argument);
  EXPECT_EQ(weight.data, x.data);
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmUpdate, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
