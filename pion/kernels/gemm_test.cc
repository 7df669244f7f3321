// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "tests/random_matrix.h"

namespace pion {
namespace {

struct Shape {
  std::int64_t m, n, k;
};

// Around the register tiles (4, 6, 12 rows; 4 to 32 columns) and the blocks (96 rows, 512
// columns, 256 deep).
constexpr Shape kShapes[] = {{1, 1, 1},    {4, 8, 3},      {5, 9, 7},
                             {6, 16, 255}, {7, 17, 256},   {12, 32, 257},
                             {13, 33, 20}, {95, 31, 64},   {97, 64, 513},
                             {3, 511, 5},  {20, 513, 300}, {193, 1030, 31}};

template <class T>
struct Operands {
  RandomMatrix<T> a, b, c;
  std::vector<T> scratch = std::vector<T>(kGemmScratch);

  explicit Operands(Shape shape)
      : a(gaussian_matrix<T>(shape.m, shape.k, 1)),
        b(gaussian_matrix<T>(shape.k, shape.n, 2)),
        c(gaussian_matrix<T>(shape.m, shape.n, 3)) {}
};

// The definition and its condition, in double: entries of alpha A B + beta C and the same
// with absolute values everywhere.
template <class T>
struct Reference {
  RandomMatrix<double> value, absolute;
};
template <class T>
Reference<T> reference(T alpha, const RandomMatrix<T>& a, const RandomMatrix<T>& b,
                       T beta, const RandomMatrix<T>& c) {
  const auto absolute = [](RandomMatrix<double> x) {
    for (double& entry : x.data) entry = std::abs(entry);
    return x;
  };
  const RandomMatrix<double> wide_a = converted<double>(a), wide_b = converted<double>(b);
  Reference<T> result = {reference_product(wide_a, wide_b),
                         reference_product(absolute(wide_a), absolute(wide_b))};
  for (std::size_t i = 0; i < result.value.data.size(); ++i) {
    result.value.data[i] =
        alpha * result.value.data[i] + beta * static_cast<double>(c.data[i]);
    result.absolute.data[i] =
        std::abs(alpha) * result.absolute.data[i] + std::abs(beta * double{c.data[i]});
  }
  return result;
}

// k products and sums, alpha, beta and their sum: k + 4 roundings at most on every path;
// the reference has as many in double, which doubles the bound when T is double.
template <class T>
double relative_tolerance(std::int64_t k) {
  const double unit = std::numeric_limits<T>::epsilon() / 2;
  return (k + 4) * unit * (std::is_same_v<T, double> ? 2 : 1);
}

template <class T>
void expect_close(const RandomMatrix<T>& actual, const Reference<T>& expected,
                  Shape shape) {
  for (std::size_t i = 0; i < actual.data.size(); ++i) {
    ASSERT_NEAR(actual.data[i], expected.value.data[i],
                relative_tolerance<T>(shape.k) * expected.absolute.data[i])
        << "m = " << shape.m << ", n = " << shape.n << ", k = " << shape.k << ", entry "
        << i;
  }
}

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
        expect_close(out, reference<T>(T{1.5}, x.a, x.b, beta, x.c), shape);
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
      expect_close(out, reference<T>(T{0.5}, x.a, x_transposed, T{2}, c), shape);
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

  // every operand a block of a wider matrix; NaN around, which would spread if it were
  // read
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto widened = [&](const RandomMatrix<float>& from) {
    RandomMatrix<float> wide = {from.rows, from.cols + gap,
                                std::vector<float>((from.cols + gap) * from.rows, nan)};
    for (std::int64_t i = 0; i < from.rows; ++i) {
      for (std::int64_t j = 0; j < from.cols; ++j) wide(i, j) = from(i, j);
    }
    return wide;
  };
  RandomMatrix<float> a = widened(x.a), b = widened(x.b), c = widened(x.c),
                      out = widened(expected);
  product<float>(1, a.view().block(0, 0, m, k), b.view().block(0, 0, k, n), 1,
                 c.view().block(0, 0, m, n), out.view().block(0, 0, m, n), x.scratch,
                 GetParam());
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) EXPECT_EQ(out(i, j), expected(i, j));
    for (std::int64_t j = n; j < n + gap; ++j) EXPECT_TRUE(std::isnan(out(i, j)));
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
