// SPDX-License-Identifier: Apache-2.0
// The maps by exact decomposition, the refusals of apply_spectral_map and
// singular_values.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "pion/spectral/spectral_map.h"
#include "tests/spectral_map_bound.h"

namespace pion {
namespace {

double square_sum(const RandomMatrix<double>& x) {
  double total = 0.0;
  for (const double value : x.data) total += value * value;
  return total;
}

// Backward error of the SVD, a modest multiple of u sigma_1, over the gaps of at least
// sigma_1 / 8 between the passed and the stopped values here.
constexpr double kTolerance = 100 * 8 * kUnitRoundoff64;

TEST(LowRank, PassesExactlyTheLargestDirections) {
  const std::vector<double> values = {4.0, 3.0, 2.0, 1.0, 0.5};
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{5, 9}, {20, 6}}) {
    const auto x = with_spectrum(rows, cols, values, 21);
    for (std::int64_t rank = 1; rank <= 4; ++rank) {
      SpectralWorkspace workspace;
      SpectrumStatistics statistics;
      const SpectralMap map = {.kind = SpectralMap::Kind::kLowRank, .rank = rank};
      const RandomMatrix<double> output =
          applied(map, x.matrix(), workspace, &statistics);
      const double edge = values[static_cast<std::size_t>(rank) - 1];
      EXPECT_LE(frobenius_distance(output, x.mapped([&](double s) { return s >= edge; })),
                kTolerance);
      EXPECT_NEAR(square_sum(output), static_cast<double>(rank), kTolerance);
      EXPECT_EQ(statistics.directions_passed, static_cast<double>(rank));
      EXPECT_NEAR(statistics.sigma_max, 4.0, kTolerance);
      double sum = 0.0;
      for (std::int64_t i = 0; i < rank; ++i) sum += values[static_cast<std::size_t>(i)];
      EXPECT_NEAR(statistics.energy_kept, sum * sum / (30.25 * static_cast<double>(rank)),
                  kTolerance);
    }
  }
}

TEST(LowRank, ARankAboveTheSizeMeansAllAndMissingDirectionsStayEmpty) {
  SpectralWorkspace workspace;
  const SpectralMap map = {.kind = SpectralMap::Kind::kLowRank, .rank = 100};
  const RandomMatrix<double> full = gaussian_matrix<double>(6, 9, 22);
  EXPECT_NEAR(square_sum(applied(map, full, workspace)), 6.0, kTolerance);
  const auto two = with_spectrum(6, 9, {2.0, 1.0}, 23);
  EXPECT_NEAR(square_sum(applied(map, two.matrix(), workspace)), 2.0, kTolerance);
}

TEST(LowPass, PassesWhatIsBelowTheCutoffOfTheFrobeniusNorm) {
  const auto x = with_spectrum(8, 11, {4.0, 3.0, 2.0, 1.0, 0.5}, 24);  // norm 5.5
  for (const double cutoff : {0.1, 0.3, 0.5, 0.9}) {
    SpectralWorkspace workspace;
    SpectrumStatistics statistics;
    const SpectralMap map = {.kind = SpectralMap::Kind::kLowPass, .cutoff = cutoff};
    const RandomMatrix<double> output = applied(map, x.matrix(), workspace, &statistics);
    const RandomMatrix<double> expected =
        x.mapped([&](double s) { return s < cutoff * 5.5; });
    EXPECT_LE(frobenius_distance(output, expected), kTolerance) << cutoff;
    EXPECT_EQ(statistics.directions_passed, std::round(square_sum(expected))) << cutoff;
  }
}

TEST(LowRank, ScaleAndStorageDoNotMatter) {
  SpectralWorkspace workspace;
  const SpectralMap map = {.kind = SpectralMap::Kind::kLowRank, .rank = 2};
  const auto x = with_spectrum(7, 7, {4.0, 2.0, 0.5}, 25);
  const RandomMatrix<double> plain = applied(map, x.matrix(), workspace);
  for (const double scale : {1e-30, 1e30, 1e-200, 1e200}) {
    RandomMatrix<double> scaled = x.matrix();
    for (double& value : scaled.data) value *= scale;
    EXPECT_LE(frobenius_distance(applied(map, scaled, workspace), plain), kTolerance)
        << scale;
  }
  // f32 rounding of the input, 2^-24 sigma_1 sqrt(49) at most, over the gap 1.5 = sigma_1
  // / 2.7
  EXPECT_LE(
      frobenius_distance(applied(map, converted<float>(x.matrix()), workspace), plain),
      10 * 2.7 * 7 * kUnitRoundoff32);
  const RandomMatrix<bfloat16> coarse = converted<bfloat16>(converted<float>(x.matrix()));
  EXPECT_LE(frobenius_distance(converted<float>(applied(map, coarse, workspace)), plain),
            10 * 2.7 * 7 * kUnitRoundoff16);
}

TEST(SingularValues, AreTheOnesTheMatrixWasMadeFrom) {
  const std::vector<double> values = {4.0, 3.0, 1.0, 1e-3};
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{4, 9}, {40, 4}}) {
    const RandomMatrix<double> x = with_spectrum(rows, cols, values, 26).matrix();
    const std::vector<double> found = singular_values<double>(x.view());
    ASSERT_EQ(found.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(found[i], values[i], kTolerance);
    const RandomMatrix<float> rounded = converted<float>(x);
    const std::vector<double> in_float = singular_values<float>(rounded.view());
    // Weyl: no value moves by more than the norm of the rounding
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(in_float[i], values[i], frobenius_distance(rounded, x) + kTolerance);
    }
  }
  EXPECT_TRUE(singular_values<float>(ConstMatrixView{}).empty());
}

class Refusals : public testing::Test {
 protected:
  void expect_refused(const SpectralMap& map, ConstMatrixView from, MatrixView to,
                      const std::string& about) {
    try {
      apply_spectral_map<float>(map, {&from, 1}, {&to, 1}, workspace_);
      ADD_FAILURE() << "accepted, expected a message about " << about;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(about), std::string::npos) << error.what();
    }
    EXPECT_EQ(output_.data, untouched_.data);
  }

  SpectralWorkspace workspace_;
  SpectralMap map_ = {.sequence = muon_sequence("classic", 5)};
  RandomMatrix<float> input_ = gaussian_matrix<float>(4, 6, 27);
  RandomMatrix<float> untouched_ = gaussian_matrix<float>(4, 6, 28);
  RandomMatrix<float> output_ = untouched_;
};

TEST_F(Refusals, ShapesThatDoNotFit) {
  const MatrixView from = input_.view(), to = output_.view();
  expect_refused(map_, from, to.block(0, 0, 3, 6), "[4, 6]");
  expect_refused(map_, from.block(0, 0, 4, 5), to, "[4, 5]");
  expect_refused(map_, {input_.data.data(), 4, 6, 5}, to, "stride");
  expect_refused(map_, {nullptr, 4, 6, 6}, to, "data");
  expect_refused(map_, {input_.data.data(), -1, 6, 6}, to, "rows");
  std::vector<SpectrumStatistics> statistics(2);
  const ConstMatrixView in = from;
  EXPECT_THROW(apply_spectral_map<float>(map_, {&in, 1}, {}, workspace_),
               std::invalid_argument);
  EXPECT_THROW(
      apply_spectral_map<float>(map_, {&in, 1}, {&to, 1}, workspace_, statistics),
      std::invalid_argument);
}

TEST_F(Refusals, MapsThatAreNone) {
  const MatrixView from = input_.view(), to = output_.view();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  expect_refused({}, from, to, "sequence");
  expect_refused({.sequence = {{nan, 0, 0}}}, from, to, "finite");
  expect_refused({.sequence = {{1, -2, 0}}}, from, to, "below zero");
  expect_refused({.sequence = map_.sequence, .norm_margin = 0.9}, from, to,
                 "norm_margin");
  expect_refused({.sequence = map_.sequence, .norm_margin = nan}, from, to,
                 "norm_margin");
  // diverges above 1: needs its margin, which it gets from muon_norm_margin
  expect_refused(
      {.sequence = muon_sequence("cans", 5), .normalization = Normalization::kSpectral},
      from, to, "norm margin");
  expect_refused({.kind = SpectralMap::Kind::kLowRank}, from, to, "rank");
  expect_refused({.kind = SpectralMap::Kind::kLowPass, .cutoff = -1}, from, to, "cutoff");
}

TEST_F(Refusals, EmptyMatricesAndBatchesAreFine) {
  const ConstMatrixView from = input_.view().block(0, 0, 0, 6);
  const MatrixView to = output_.view().block(0, 0, 0, 6);
  EXPECT_TRUE(apply_spectral_map<float>(map_, {&from, 1}, {&to, 1}, workspace_));
  EXPECT_TRUE(apply_spectral_map<float>(map_, {}, {}, workspace_));
  EXPECT_EQ(output_.data, untouched_.data);
}

}  // namespace
}  // namespace pion
