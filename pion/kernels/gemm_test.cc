// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "tests/gemm_reference.h"

namespace pion {
namespace {

struct Shape {
  std::int64_t m, n, k;
};

// Around the register tiles (1 to 16 rows; 4 to 32 columns) and the blocks (192 rows, 512
// columns, 256 deep).
constexpr Shape kShapes[] = {{1, 1, 1},    {4, 8, 3},      {5, 9, 7},
                             {6, 16, 255}, {7, 17, 256},   {12, 32, 257},
                             {13, 33, 20}, {95, 31, 64},   {97, 64, 513},
                             {3, 511, 5},  {20, 513, 300}, {193, 1030, 31}};

std::string named(Shape shape) {
  return "m = " + std::to_string(shape.m) + ", n = " + std::to_string(shape.n) +
         ", k = " + std::to_string(shape.k);
}

template <class T>
struct Operands {
  RandomMatrix<T> a, b, c;
  std::vector<T> scratch = std::vector<T>(kGemmScratch);

  explicit Operands(Shape shape)
      : a(gaussian_matrix<T>(shape.m, shape.k, 1)),
        b(gaussian_matrix<T>(shape.k, shape.n, 2)),
        c(gaussian_matrix<T>(shape.m, shape.n, 3)) {}
};

class Gemm : public testing::TestWithParam<CpuTarget> {
 protected:
  template <class T>
  void product_agrees() {
    for (const Shape shape : kShapes) {
      Operands<T> x(shape);
      for (const T beta : {T{0}, T{-0.75}}) {
        RandomMatrix<T> out = zero_matrix<T>(shape.m, shape.n);
        product<T>(T{1.5}, x.a.view(), x.b.view(), beta, x.c.view(), out.view(),
                   x.scratch, GetParam());
        expect_close(out, gemm_reference<T>(T{1.5}, x.a, x.b, beta, x.c), shape.k,
                     named(shape));
      }
    }
  }

  template <class T>
  void symmetric_product_agrees() {
    for (const Shape shape : kShapes) {
      Operands<T> x({shape.m, shape.m, shape.k});
      const RandomMatrix<T> x_transposed = transposed(x.a);
      // beta C must be symmetric: C + C^T
      RandomMatrix<T> c = x.c;
      for (std::int64_t i = 0; i < c.rows; ++i) {
        for (std::int64_t j = 0; j < c.cols; ++j) c(i, j) = x.c(i, j) + x.c(j, i);
      }
      RandomMatrix<T> out = zero_matrix<T>(shape.m, shape.m);
      symmetric_product<T>(T{0.5}, x.a.view(), T{2}, c.view(), out.view(), x.scratch,
                           GetParam());
      expect_close(out, gemm_reference<T>(T{0.5}, x.a, x_transposed, T{2}, c), shape.k,
                   named(shape));
      EXPECT_EQ(out.data, transposed(out).data) << "m = " << shape.m;
    }
  }
};

TEST_P(Gemm, ProductAgreesWithTheDefinitionAroundEveryTile) { product_agrees<float>(); }
TEST_P(Gemm, ProductAgreesWithTheDefinitionInDouble) { product_agrees<double>(); }
TEST_P(Gemm, SymmetricProductAgreesAndIsSymmetricToTheBit) {
  symmetric_product_agrees<float>();
}
TEST_P(Gemm, SymmetricProductAgreesInDouble) { symmetric_product_agrees<double>(); }

TEST_P(Gemm, StridesChangeNothingAndGapsStayUntouched) {
  constexpr std::int64_t m = 13, n = 35, k = 30, gap = 5;
  Operands<float> x({m, n, k});
  RandomMatrix<float> expected = zero_matrix<float>(m, n);
  product<float>(1, x.a.view(), x.b.view(), 1, x.c.view(), expected.view(), x.scratch,
                 GetParam());

  // every operand a block of a wider matrix; NaN around
  RandomMatrix<float> a = widened(x.a, gap), b = widened(x.b, gap), c = widened(x.c, gap),
                      out = widened(expected, gap);
  product<float>(1, a.view().block(0, 0, m, k), b.view().block(0, 0, k, n), 1,
                 c.view().block(0, 0, m, n), out.view().block(0, 0, m, n), x.scratch,
                 GetParam());
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) EXPECT_EQ(out(i, j), expected(i, j));
    for (std::int64_t j = n; j < n + gap; ++j) EXPECT_TRUE(std::isnan(out(i, j)));
  }
}

TEST_P(Gemm, RandomShapesAgree) {
  RandomNumbers random(7);
  std::vector<float> scratch = poisoned<float>(kGemmScratch);
  for (int round = 0; round < 80; ++round) {
    const Shape shape = {random.integer(1, 90), random.integer(1, 140),
                         random.integer(1, 300)};
    const Operands<float> x(shape);
    const auto alpha = static_cast<float>(random.normal()),
               beta = static_cast<float>(random.normal());
    RandomMatrix<float> out = zero_matrix<float>(shape.m, shape.n);
    product<float>(alpha, x.a.view(), x.b.view(), beta, x.c.view(), out.view(), scratch,
                   GetParam());
    expect_close(out, gemm_reference<float>(alpha, x.a, x.b, beta, x.c), shape.k,
                 named(shape));
  }
}

// Row i of A decides row i of A B, column j of B column j.
TEST_P(Gemm, NonFiniteEntriesStayInTheirRowOrColumn) {
  constexpr std::int64_t m = 29, n = 75, k = 40;
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity()}) {
    Operands<float> x({m, n, k});
    RandomMatrix<float> clean = zero_matrix<float>(m, n), out = clean;
    const auto compute = [&](RandomMatrix<float>& to) {
      product<float>(1, x.a.view(), x.b.view(), 1, x.c.view(), to.view(), x.scratch,
                     GetParam());
    };
    compute(clean);
    x.a(13, 5) = poison, x.b(7, 70) = poison;
    compute(out);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        if (i == 13 || j == 70) {
          EXPECT_FALSE(std::isfinite(out(i, j)));
        } else {
          ASSERT_EQ(out(i, j), clean(i, j)) << i << ", " << j;
        }
      }
    }
  }
}

TEST_P(Gemm, AnEmptySumIsBetaC) {
  Operands<float> x({3, 4, 0});
  RandomMatrix<float> out = gaussian_matrix<float>(3, 4, 9);
  product<float>(1, x.a.view(), x.b.view(), 2, x.c.view(), out.view(), x.scratch,
                 GetParam());
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(out.data[i], 2 * x.c.data[i]);
}

TEST_P(Gemm, WithAlphaZeroTheOperandsAreNotRead) {
  Operands<float> x({3, 4, 5});
  x.a.data.assign(x.a.data.size(), std::numeric_limits<float>::quiet_NaN());
  RandomMatrix<float> out = gaussian_matrix<float>(3, 4, 9);
  product<float>(0, x.a.view(), x.b.view(), 2, x.c.view(), out.view(), x.scratch,
                 GetParam());
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(out.data[i], 2 * x.c.data[i]);
}

TEST_P(Gemm, PeakCountsWhatItIsAskedToDo) {
  EXPECT_GT(multiply_add_peak(100, GetParam()), 0.0);
  EXPECT_EQ(multiply_add_peak(300, GetParam()), 3 * multiply_add_peak(100, GetParam()));
}

TEST_P(Gemm, MismatchedShapesAreRefused) {
  Operands<float> x({3, 4, 5});
  RandomMatrix<float> out = zero_matrix<float>(3, 4);
  const auto call = [&](ConstMatrixView a, ConstMatrixView b, ConstMatrixView c,
                        MatrixView to, std::size_t scratch) {
    product<float>(1, a, b, 1, c, to, std::span(x.scratch).first(scratch), GetParam());
  };
  const ConstMatrixView a = x.a.view(), b = x.b.view(), c = x.c.view();
  EXPECT_NO_THROW(call(a, b, c, out.view(), kGemmScratch));
  EXPECT_THROW(call(a, a, c, out.view(), kGemmScratch), std::invalid_argument);
  EXPECT_THROW(call(a, b, a, out.view(), kGemmScratch), std::invalid_argument);
  EXPECT_THROW(call(a, b, c, out.view().block(0, 0, 2, 4), kGemmScratch),
               std::invalid_argument);
  EXPECT_THROW(call(a, b, c, out.view(), kGemmScratch - 1), std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Targets, Gemm, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
