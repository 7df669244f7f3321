// SPDX-License-Identifier: Apache-2.0
#include "lab/report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace pion::lab {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(StudentT, QuantilesMatchThePrintedTable) {
  // 0.975 quantiles to the four decimals of NIST's table of Student's t
  const std::pair<double, double> table[] = {{1, 12.706}, {2, 4.303}, {3, 3.182},
                                             {4, 2.776},  {9, 2.262}, {29, 2.045},
                                             {100, 1.984}};
  for (const auto& [freedom, expected] : table) {
    EXPECT_NEAR(student_t_quantile(0.975, freedom), expected, 5.1e-4) << freedom;
    EXPECT_NEAR(student_t_quantile(0.025, freedom), -expected, 5.1e-4) << freedom;
  }
}

TEST(StudentT, CdfHasTheClosedFormsOfOneAndTwoDegreesOfFreedom) {
  for (const double t : {-30.0, -2.0, -0.1, 0.0, 0.5, 3.0, 80.0}) {
    // Cauchy; and 1/2 + t / (2 sqrt(2 + t^2)). The fraction stops at 1e-15; 1e-12 leaves
    // room for lgamma and for the cancellation of 1 - tail.
    EXPECT_NEAR(student_t_cdf(t, 1), 0.5 + std::atan(t) / std::acos(-1.0), 1e-12) << t;
    EXPECT_NEAR(student_t_cdf(t, 2), 0.5 + t / (2.0 * std::sqrt(2.0 + t * t)), 1e-12)
        << t;
  }
}

TEST(ConfidenceInterval, OfThreeValuesIsTheTextbookOne) {
  const Interval interval = confidence_interval({1.0, 2.0, 3.0});
  EXPECT_DOUBLE_EQ(interval.mean, 2.0);
  EXPECT_DOUBLE_EQ(interval.deviation, 1.0);
  EXPECT_NEAR(interval.half_width, 4.302653 / std::sqrt(3.0),
              1e-6);  // t of 2 degrees, 7 digits
  EXPECT_EQ(interval.count, 3);
}

TEST(ConfidenceInterval, LeavesOutWhatIsNotFiniteAndNeedsTwoValues) {
  const Interval one = confidence_interval({kNan, 4.0, HUGE_VAL});
  EXPECT_EQ(one.count, 1);
  EXPECT_EQ(one.mean, 4.0);
  EXPECT_TRUE(std::isnan(one.half_width));
  EXPECT_TRUE(std::isnan(confidence_interval({}).mean));
}

TEST(WelchDifference, EqualsThePooledIntervalForEqualSizesAndVariances) {
  const Interval gap = welch_difference({1, 2, 3}, {5, 6, 7});
  EXPECT_DOUBLE_EQ(gap.mean, -4.0);
  // freedom 4, standard error sqrt(2/3); t 2.776445 to 7 digits
  EXPECT_NEAR(gap.half_width, 2.776445 * std::sqrt(2.0 / 3.0), 1e-6);
}

TEST(WelchDifference, OfConstantSeedsHasNoWidth) {
  EXPECT_EQ(welch_difference({1, 1}, {3, 3}).half_width, 0.0);
  EXPECT_TRUE(std::isnan(welch_difference({1}, {3, 3}).half_width));
}

TEST(Downsample, AveragesBinsAndKeepsTheMean) {
  Curve curve;
  for (int i = 0; i < 1000; ++i) curve.x.push_back(i), curve.y.push_back(2.0 * i);
  const Curve small = downsample(curve, 100);
  ASSERT_EQ(small.x.size(), 100u);
  EXPECT_DOUBLE_EQ(small.x[0], 4.5);  // mean of 0..9
  EXPECT_DOUBLE_EQ(small.y[99], 2.0 * 994.5);
}

TEST(Downsample, DropsGapsAndWhatAResumedRunRepeats) {
  const Curve curve =
      downsample({{0, 1, 2, 3, 2, 3, 4}, {0, kNan, 2, 3, 20, 30, 40}}, 100);
  EXPECT_EQ(curve.x, (std::vector<double>{0, 2, 3, 4}));
  EXPECT_EQ(curve.y, (std::vector<double>{0, 20, 30, 40}));
}

TEST(Aggregate, KeepsEqualAbscissas) {
  const Band band = aggregate({{{0, 1, 5}, {1, 2, 3}}, {{0, 1, 5}, {3, 6, 3}}}, 50);
  EXPECT_EQ(band.x, (std::vector<double>{0, 1, 5}));
  EXPECT_EQ(band.mean, (std::vector<double>{2, 4, 3}));
  EXPECT_EQ(band.low, (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(band.high, (std::vector<double>{3, 6, 3}));
}

TEST(Aggregate, OfUnequalLengthsCountsOnlySeedsThatGotThatFar) {
  // y = x and y = 10 x: linear interpolation is exact up to rounding of the grid
  const Band band = aggregate({{{0, 4}, {0, 4}}, {{0, 8}, {0, 80}}}, 9);
  ASSERT_EQ(band.x.size(), 9u);
  for (std::size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(band.count[i], band.x[i] <= 4 ? 2 : 1);
    EXPECT_NEAR(band.mean[i], band.x[i] <= 4 ? 5.5 * band.x[i] : 10 * band.x[i], 1e-12);
  }
}

TEST(Aggregate, OfNothingIsEmpty) {
  EXPECT_TRUE(aggregate({}, 10).x.empty());
  EXPECT_TRUE(aggregate({Curve{}, Curve{}}, 10).x.empty());
}

}  // namespace
}  // namespace pion::lab
