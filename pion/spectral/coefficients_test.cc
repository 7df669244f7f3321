// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/coefficients.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace pion {
namespace {

// Five steps, argument in [0, 1], computed apart from this code in float64 and printed to
// 4 digits; range over [0.01, 1].
struct Response {
  const char* name;
  QuinticSequence sequence;
  double slope, low, high, at_thousandth, at_tenth, at_one;
};

std::vector<Response> responses() {
  const QuinticSequence textbook(5, {1.875, -1.25, 0.375});
  return {
      {"classic", muon_sequence("classic", 5), 484.9, .6818, 1.1344, .4705, .7121, .6964},
      {"quintic", muon_sequence("quintic", 5), 492.8, .9778, 1.0318, .4750, 1.0190,
       .9783},
      {"polar_express", muon_sequence("polar_express", 5), 976.3, .8703, 1.1236, .8462,
       .8749, 1.0288},
      {"polar_express, 8 steps", muon_sequence("polar_express", 8), 6363, 1.0, 1.0, 1.0,
       1.0, 1.0},
      {"cans", muon_sequence("cans", 5), 1048.9, .8844, 1.1198, .8865, .9163, 1.0051},
      {"textbook quintic", textbook, 23.2, .2285, 1.0, .0232, .9958, 1.0},
  };
}

TEST(MuonSequence, MeetsThePublishedResponseToThePrintedDigits) {
  for (const Response& expected : responses()) {
    SCOPED_TRACE(expected.name);
    const QuinticSequence& sequence = expected.sequence;
    double slope = 1.0, low = 2.0, high = 0.0;
    for (const Quintic& p : sequence) slope *= p.a;
    for (int i = 0; i <= 99'000; ++i) {
      const double value = evaluate(sequence, 0.01 + i * 1e-5);
      low = std::min(low, value), high = std::max(high, value);
    }
    // half a unit of the last printed digit; 2 % of it for the grid and the printing
    // itself
    const double four_digits = 0.51e-4;
    EXPECT_NEAR(slope, expected.slope, expected.slope > 1100 ? 0.51 : 0.051);
    EXPECT_NEAR(low, expected.low, four_digits);
    EXPECT_NEAR(high, expected.high, four_digits);
    EXPECT_NEAR(evaluate(sequence, 0.001), expected.at_thousandth, four_digits);
    EXPECT_NEAR(evaluate(sequence, 0.1), expected.at_tenth, four_digits);
    EXPECT_NEAR(evaluate(sequence, 1.0), expected.at_one, four_digits);
  }
}

TEST(MuonSequence, CubicIsTheTextbookIteration) {
  for (const double s : {0.0, 0.1, 0.5, 1.0}) {
    const double once = 1.5 * s - 0.5 * s * s * s;
    EXPECT_NEAR(evaluate(muon_sequence("cubic", 1), s), once, 1e-15);
    EXPECT_NEAR(evaluate(muon_sequence("cubic", 2), s),
                1.5 * once - 0.5 * once * once * once, 1e-15);
  }
}

TEST(MuonSequence, EveryShippedSetKeepsTheSignAndStaysBoundedAsItIsUsed) {
  for (const std::string& name : muon_sequence_names()) {
    for (const int steps : {1, 2, 3, 4, 5, 6, 8, 10, 20, 64}) {
      const QuinticSequence sequence = muon_sequence(name, steps);
      ASSERT_EQ(sequence.size(), static_cast<std::size_t>(steps));
      // inputs are divided by the margin; an estimate of sigma_1 may be 1 % too small
      const double upper = 1.01 / muon_norm_margin(name);
      EXPECT_NO_THROW(check_sequence(sequence, name, upper)) << name << ", " << steps;
      const double largest = largest_value(sequence, upper, name);
      double largest_on_grid = 0.0;
      for (int i = 1; i <= 100'000; ++i) {
        const double value = evaluate(sequence, upper * i * 1e-5);
        ASSERT_GT(value, 0.0) << name << ", " << steps << " steps, grid point " << i;
        largest_on_grid = std::max(largest_on_grid, value);
      }
      EXPECT_LE(largest_on_grid, largest * (1 + 1e-12)) << name << ", " << steps;
      EXPECT_LT(largest, 2.0) << name << ", " << steps;
    }
  }
}

TEST(MuonSequence, UnknownNamesAndStepsAreErrorsThatSayWhatIsAllowed) {
  try {
    muon_sequence("turbo", 5);
    FAIL();
  } catch (const std::invalid_argument& error) {
    for (const std::string& name : muon_sequence_names()) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(muon_norm_margin("turbo"), std::invalid_argument);
  for (const int steps : {-1, 0, 65}) {
    EXPECT_THROW(muon_sequence("classic", steps), std::invalid_argument) << steps;
    EXPECT_THROW(high_pass_sequence(0, steps), std::invalid_argument) << steps;
    EXPECT_THROW(cutoff_sequence(0.5, steps), std::invalid_argument) << steps;
  }
}

// Where an increasing map reaches `level`.
double crossing(const QuinticSequence& sequence, double level) {
  double low = 0.0, high = 1.0;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (evaluate(sequence, middle) >= level ? high : low) = middle;
  }
  return high;
}

TEST(HighPassSequence, MeetsThePassBandsOfItsPaper) {
  struct Row {
    double threshold, gain_hundredth, gain_half, gain_nine_tenths, half_pass;
  };
  // thresholds and gains as tabulated, 4 digits; half-pass points, 3 digits
  constexpr Row kRows[] = {
      {.8165, .7476, .7978, .8243, .798}, {.5230, .4157, .4922, .5363, .492},
      {.2957, .1874, .2633, .3100, .263}, {.1605, .0660, .1305, .1739, .131},
      {.0860, .0130, .0595, .0982, .060}, {.0459, .0004, .0232, .0569, .023}};
  for (int promotions = 0; promotions <= 5; ++promotions) {
    SCOPED_TRACE(promotions);
    const QuinticSequence sequence = high_pass_sequence(promotions, 5);
    const Row& row = kRows[promotions];
    const QuinticSequence promoted(sequence.begin(), sequence.begin() + promotions);
    EXPECT_NEAR(crossing(promoted, kLargestCutoff), row.threshold, 0.51e-4);
    EXPECT_NEAR(crossing(sequence, 0.01), row.gain_hundredth, 0.51e-4);
    EXPECT_NEAR(crossing(sequence, 0.5), row.gain_half, 0.51e-4);
    EXPECT_NEAR(crossing(sequence, 0.9), row.gain_nine_tenths, 0.51e-4);
    EXPECT_NEAR(crossing(sequence, 0.5), row.half_pass, 0.51e-3);
    EXPECT_EQ(evaluate(sequence, 1.0), 1.0);
    // f'(1) = 0: 1e-5 away from 1 the change is second order
    EXPECT_NEAR(evaluate(sequence, 1.0 - 1e-5), 1.0, 1e-8);
    EXPECT_NO_THROW(check_sequence(sequence, "high-pass", 1.087));
  }
  EXPECT_THROW(high_pass_sequence(-1, 5), std::invalid_argument);
  EXPECT_THROW(high_pass_sequence(6, 5), std::invalid_argument);
}

TEST(HighPassQuintic, HoldsPromotionSuppressionAndTheFixedPoint) {
  for (const double s : {0.1, 0.5, 0.9, 1.0}) {
    EXPECT_NEAR(high_pass_quintic(1.875)(s), evaluate(high_pass_sequence(1, 1), s),
                1e-15);
    EXPECT_NEAR(high_pass_quintic(0.0)(s), evaluate(high_pass_sequence(0, 1), s), 1e-15);
  }
  for (const double a : {0.0, 0.3, 0.7, 0.9}) {
    const double fixed = std::sqrt((1 - a) / (1.5 - a));
    EXPECT_NEAR(high_pass_quintic(a)(fixed), fixed, 1e-15) << a;
  }
}

TEST(CutoffSequence, TakesTheCutoffToTheFixedPointAndIsMonotone) {
  for (const int steps : {1, 2, 5, 6, 12, 64}) {
    const double smallest = smallest_cutoff(steps);
    for (const double cutoff : {smallest, smallest * (1 + 1e-9), 0.05, 0.1, 0.2, 0.3, 0.5,
                                0.7, 0.8, kLargestCutoff}) {
      if (cutoff < smallest) continue;
      SCOPED_TRACE(testing::Message()
                   << "cutoff " << cutoff << ", " << steps << " steps");
      const QuinticSequence sequence = cutoff_sequence(cutoff, steps);
      ASSERT_EQ(sequence.size(), static_cast<std::size_t>(steps));
      EXPECT_EQ(evaluate(sequence, 0.0), 0.0);
      EXPECT_NEAR(evaluate(sequence, 1.0), 1.0, 1e-14);
      EXPECT_NO_THROW(check_sequence(sequence, "cutoff", 1.087));

      // every step after the one that gets there keeps it; at the end rounding has been
      // multiplied by f_s'(sqrt(2/3)) = 5/3 in each, so look at the first one
      double image = cutoff, closest = 1.0;
      for (const Quintic& p : sequence) {
        image = p(image);
        closest = std::min(closest, std::abs(image - std::sqrt(2.0 / 3.0)));
      }
      EXPECT_LT(closest, 1e-14);
      if (steps <= 12) {
        EXPECT_NEAR(image, std::sqrt(2.0 / 3.0), 1e-15 * std::pow(5.0 / 3.0, steps));
      }

      double before = 0.0;
      for (int i = 1; i <= 20'000; ++i) {
        const double value = evaluate(sequence, i / 20'000.0);
        ASSERT_GE(value, before - 1e-14) << "at " << i / 20'000.0;
        before = value;
      }
    }
  }
}

TEST(CutoffSequence, FiltersAsSharplyAsTheDesignSays) {
  struct Row {
    double cutoff, at_half, at_eight_tenths, at_five_quarters, at_double;
  };
  // rounded as in the design: thousandths for the first column of 0.5 and 0.3, hundredths
  // else
  constexpr Row kRows[] = {{0.5, .000, .03, 1.00, 1.00},
                           {0.3, .000, .22, 1.00, 1.00},
                           {0.1, .26, .63, .94, 1.00}};
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.cutoff);
    const QuinticSequence sequence = cutoff_sequence(row.cutoff, 5);
    EXPECT_NEAR(evaluate(sequence, 0.5 * row.cutoff), row.at_half, 0.51e-2);
    EXPECT_NEAR(evaluate(sequence, 0.8 * row.cutoff), row.at_eight_tenths, 0.51e-2);
    EXPECT_NEAR(evaluate(sequence, 1.25 * row.cutoff), row.at_five_quarters, 0.51e-2);
    EXPECT_NEAR(evaluate(sequence, 2.0 * row.cutoff), row.at_double, 0.51e-2);
  }
}

TEST(CutoffSequence, PublishedThresholdsAreFiveOfItsPoints) {
  for (int promotions = 0; promotions < 5; ++promotions) {
    const QuinticSequence published = high_pass_sequence(promotions, 5);
    const QuinticSequence promoted(published.begin(), published.begin() + promotions);
    const QuinticSequence ours = cutoff_sequence(
        promotions == 0 ? kLargestCutoff : crossing(promoted, kLargestCutoff), 5);
    // a rounding of t moves the partial step's a by 1e-14 at most here
    for (double s = 0.0; s <= 1.0; s += 0.01) {
      EXPECT_NEAR(evaluate(ours, s), evaluate(published, s), 1e-12)
          << promotions << ", " << s;
    }
  }
}

TEST(CutoffSequence, OutOfReachNamesTheSmallestCutoff) {
  EXPECT_NEAR(smallest_cutoff(5), 0.0459314, 1e-7);
  try {
    cutoff_sequence(0.04, 5);
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("0.04593"), std::string::npos)
        << error.what();
  }
  for (const double cutoff :
       {-0.1, 0.0, 0.82, 1.0, std::numeric_limits<double>::quiet_NaN(),
        std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(cutoff_sequence(cutoff, 64), std::invalid_argument) << cutoff;
  }
}

TEST(NoiseEdge, IsTheMarchenkoPasturEdge) {
  EXPECT_NEAR(noise_edge(64, 256), 1.0 / 8 + 1.0 / 16, 1e-16);
  EXPECT_EQ(noise_edge(64, 256), noise_edge(256, 64));
  EXPECT_THROW(noise_edge(0, 4), std::invalid_argument);
  EXPECT_THROW(noise_edge(4, -1), std::invalid_argument);
}

TEST(CheckSequence, RefusesTheListWhoseFirstStepHasARootBelowOne) {
  // "aol" of NeMo: root at 0.883698
  const QuinticSequence aol_b = {{4.0098, -7.0585, 2.4635},
                                 {3.4585, -5.5479, 2.5959},
                                 {2.7573, -3.2939, 1.4254},
                                 {2.7215, -3.0494, 1.3169}};
  EXPECT_LT(evaluate(aol_b, 1.0), -0.99);
  EXPECT_THROW(check_sequence(aol_b, "aol"), std::invalid_argument);
  EXPECT_THROW(check_sequence({aol_b[0]}, "aol", 0.8837), std::invalid_argument);
  EXPECT_NO_THROW(check_sequence({aol_b[0]}, "aol", 0.8836));
  // "aol" of dion keeps the sign
  const QuinticSequence aol_a = {{4.6051, -9.6552, 5.6769},
                                 {4.7505, -6.0861, 2.1790},
                                 {2.7763, -2.3190, 0.5523},
                                 {2.4231, -2.2861, 0.8193}};
  EXPECT_NO_THROW(check_sequence(aol_a, "aol"));
}

TEST(CheckSequence, RefusesADipBetweenTheEndsAndASignFlipInALaterStep) {
  // 1 - 3 s^2 + 2.2 s^4 is -0.02 at s^2 = 0.68 and positive at 0 and 1
  EXPECT_THROW(check_sequence({{1.0, -3.0, 2.2}}, "dip"), std::invalid_argument);
  EXPECT_THROW(check_sequence({{1.875, -1.25, 0.375}, {1.0, -1.1, 0.0}}, "later"),
               std::invalid_argument);
}

TEST(CheckSequence, RefusesNonFiniteCoefficientsAndDivergence) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {nan, infinity, -infinity}) {
    EXPECT_THROW(check_sequence({{bad, 0, 0}}, "bad"), std::invalid_argument);
    EXPECT_THROW(check_sequence({{1, bad, 0}}, "bad"), std::invalid_argument);
    EXPECT_THROW(check_sequence({{1, 0, bad}}, "bad"), std::invalid_argument);
  }
  EXPECT_THROW(check_sequence({{2.1, 0, 0}}, "grows"), std::invalid_argument);
  // without its margin, from 1.0001 on
  EXPECT_THROW(check_sequence(muon_sequence("cans", 5), "cans", 1.0001),
               std::invalid_argument);
}

}  // namespace
}  // namespace pion
