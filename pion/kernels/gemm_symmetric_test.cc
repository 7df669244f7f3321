// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "pion/kernels/gemm.h"
#include "tests/gemm_reference.h"

namespace pion {
namespace {

// Every register tile up to 70, and the edges of larger blocks.
std::vector<std::int64_t> sides() {
  std::vector<std::int64_t> all;
  for (std::int64_t m = 1; m <= 70; ++m) all.push_back(m);
  for (const std::int64_t m : {127, 128, 129, 191, 192, 193, 255, 256, 257, 300}) {
    all.push_back(m);
  }
  return all;
}

// Two polynomials of one symmetric matrix, which commute but for rounding: A = S and
// B = S^2 / m + 2 S - I, computed in double and rounded to T. The upper half of A B is
// compared with the definition, so that no more than the symmetry of `out` rests on it.
template <class T>
struct CommutingPair {
  RandomMatrix<T> a, b, c;
  explicit CommutingPair(std::int64_t m)
      : a(symmetric_matrix<T>(m, 11)), b(zero_matrix<T>(m, m)) {
    c = symmetric_matrix<T>(m, 12);
    const RandomMatrix<double> s = converted<double>(a), square = reference_product(s, s);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        const double entry =
            square(i, j) / static_cast<double>(m) + 2.0 * s(i, j) - (i == j ? 1.0 : 0.0);
        b(i, j) = b(j, i) = static_cast<T>(entry);
      }
    }
  }
};

// The upper half of `x`, mirrored.
GemmReference mirrored(GemmReference x) {
  for (std::int64_t i = 0; i < x.value.rows; ++i) {
    for (std::int64_t j = 0; j < i; ++j) {
      x.value(i, j) = x.value(j, i), x.absolute(i, j) = x.absolute(j, i);
    }
  }
  return x;
}

class GemmSymmetric : public testing::TestWithParam<CpuTarget> {
 protected:
  template <class T>
  void commuting_product_agrees() {
    std::vector<T> scratch = poisoned<T>(kGemmScratch);
    for (const std::int64_t m : sides()) {
      const CommutingPair<T> x(m);
      for (const T beta : {T{0}, T{-0.75}}) {
        RandomMatrix<T> out = zero_matrix<T>(m, m);
        commuting_product<T>(T{1.5}, x.a.view(), x.b.view(), beta, x.c.view(), out.view(),
                             scratch, GetParam());
        const std::string what = "m = " + std::to_string(m);
        expect_close(out, mirrored(gemm_reference<T>(T{1.5}, x.a, x.b, beta, x.c)), m,
                     what);
        EXPECT_EQ(out.data, transposed(out).data) << what;
      }
    }
  }
};

TEST_P(GemmSymmetric, CommutingProductAgreesWithTheDefinitionAndIsSymmetricToTheBit) {
  commuting_product_agrees<float>();
}
TEST_P(GemmSymmetric, CommutingProductAgreesInDouble) {
  commuting_product_agrees<double>();
}

// Two paths through the kernel, one in place and one packed, must round alike.
TEST_P(GemmSymmetric, TheSquareIsSymmetricProductsToTheBit) {
  std::vector<float> scratch = poisoned<float>(kGemmScratch);
  for (const std::int64_t m : {1, 15, 16, 33, 64, 100, 128, 200, 256, 257, 520}) {
    const RandomMatrix<float> a = symmetric_matrix<float>(m, 13),
                              c = symmetric_matrix<float>(m, 14);
    RandomMatrix<float> square = zero_matrix<float>(m, m), expected = square;
    commuting_product<float>(0.3f, a.view(), a.view(), 0.7f, c.view(), square.view(),
                             scratch, GetParam());
    symmetric_product<float>(0.3f, a.view(), 0.7f, c.view(), expected.view(), scratch,
                             GetParam());
    EXPECT_EQ(square.data, expected.data) << "m = " << m;
  }
}

TEST_P(GemmSymmetric, DeltaIsAddedToTheDiagonalAlone) {
  std::vector<float> scratch(kGemmScratch);
  const CommutingPair<float> x(37);
  RandomMatrix<float> expected = zero_matrix<float>(37, 37), out = expected;
  commuting_product<float>(2, x.a.view(), x.b.view(), 1, x.c.view(), expected.view(),
                           scratch, GetParam());
  commuting_product<float>(2, x.a.view(), x.b.view(), 1, x.c.view(), 0.5f, out.view(),
                           scratch, GetParam());
  for (std::int64_t i = 0; i < 37; ++i) expected(i, i) += 0.5f;
  EXPECT_EQ(out.data, expected.data);
}

TEST_P(GemmSymmetric, StridesChangeNothingGapsStayUntouchedAndCMayBeOut) {
  std::vector<float> scratch = poisoned<float>(kGemmScratch);
  for (const std::int64_t m : {7, 48, 130}) {
    const CommutingPair<float> x(m);
    RandomMatrix<float> expected = zero_matrix<float>(m, m);
    commuting_product<float>(1, x.a.view(), x.b.view(), 0.5f, x.c.view(), expected.view(),
                             scratch, GetParam());
    const RandomMatrix<float> a = widened(x.a, 5), b = widened(x.b, 3);
    RandomMatrix<float> out = widened(x.c, 9);
    commuting_product<float>(1, a.view().block(0, 0, m, m), b.view().block(0, 0, m, m),
                             0.5f, out.view().block(0, 0, m, m),
                             out.view().block(0, 0, m, m), scratch, GetParam());
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < m; ++j) ASSERT_EQ(out(i, j), expected(i, j));
      for (std::int64_t j = m; j < m + 9; ++j) ASSERT_TRUE(std::isnan(out(i, j)));
    }
  }
}

TEST_P(GemmSymmetric, RandomShapesAgree) {
  RandomNumbers random(99);
  std::vector<float> scratch = poisoned<float>(kGemmScratch);
  for (int round = 0; round < 60; ++round) {
    const std::int64_t m = random.integer(1, 150), k = random.integer(1, 600);
    const RandomMatrix<float> x = gaussian_matrix<float>(m, k, 1000 + round),
                              c = symmetric_matrix<float>(m, 2000 + round);
    const auto alpha = static_cast<float>(random.normal()),
               beta = static_cast<float>(random.normal());
    RandomMatrix<float> out = zero_matrix<float>(m, m);
    symmetric_product<float>(alpha, x.view(), beta, c.view(), out.view(), scratch,
                             GetParam());
    expect_close(out, gemm_reference<float>(alpha, x, transposed(x), beta, c), k,
                 "m = " + std::to_string(m) + ", k = " + std::to_string(k));
    EXPECT_EQ(out.data, transposed(out).data);
  }
}

// Row r of X decides row and column r of X X^T, nothing else.
TEST_P(GemmSymmetric, NonFiniteRowsStayInTheirRowAndColumn) {
  std::vector<float> scratch(kGemmScratch);
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity()}) {
    for (const std::int64_t r : {0, 17, 63, 69}) {
      RandomMatrix<float> x = gaussian_matrix<float>(70, 90, 5);
      RandomMatrix<float> clean = zero_matrix<float>(70, 70), out = clean;
      symmetric_product<float>(1, x.view(), 0, {}, clean.view(), scratch, GetParam());
      x(r, 41) = poison;
      symmetric_product<float>(1, x.view(), 0, {}, out.view(), scratch, GetParam());
      for (std::int64_t i = 0; i < 70; ++i) {
        for (std::int64_t j = 0; j < 70; ++j) {
          if (i == r || j == r) {
            EXPECT_FALSE(std::isfinite(out(i, j)));
          } else {
            ASSERT_EQ(out(i, j), clean(i, j)) << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST_P(GemmSymmetric, MismatchedShapesAreRefused) {
  std::vector<float> scratch(kGemmScratch);
  const RandomMatrix<float> x = symmetric_matrix<float>(6, 1);
  RandomMatrix<float> out = zero_matrix<float>(6, 6);
  const ConstMatrixView whole = x.view(), part = x.view().block(0, 0, 5, 6);
  const auto call = [&](ConstMatrixView a, ConstMatrixView b, ConstMatrixView c,
                        MatrixView to, std::size_t elements) {
    commuting_product<float>(1, a, b, 1, c, to, std::span(scratch).first(elements),
                             GetParam());
  };
  EXPECT_NO_THROW(call(whole, whole, whole, out.view(), kGemmScratch));
  EXPECT_THROW(call(part, whole, whole, out.view(), kGemmScratch), std::invalid_argument);
  EXPECT_THROW(call(whole, part, whole, out.view(), kGemmScratch), std::invalid_argument);
  EXPECT_THROW(call(whole, whole, part, out.view(), kGemmScratch), std::invalid_argument);
  EXPECT_THROW(call(whole, whole, whole, out.view().block(0, 0, 6, 5), kGemmScratch),
               std::invalid_argument);
  EXPECT_THROW(call(whole, whole, whole, out.view(), kGemmScratch - 1),
               std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmSymmetric,
                         testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
