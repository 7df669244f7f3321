// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/spectral_map.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "pion/kernels/cpu_target.h"
#include "tests/spectral_map_bound.h"

namespace pion {
namespace {

SpectralMap polynomial(QuinticSequence sequence,
                       Normalization normalization = Normalization::kFrobenius,
                       double norm_margin = 1.0) {
  return {.sequence = std::move(sequence),
          .normalization = normalization,
          .norm_margin = norm_margin};
}

// Muon in all its coefficients, the published filter, ours, and both norms.
std::vector<SpectralMap> polynomial_maps() {
  std::vector<SpectralMap> maps;
  for (const Normalization norm : {Normalization::kFrobenius, Normalization::kSpectral}) {
    for (const std::string& name : muon_sequence_names()) {
      maps.push_back(polynomial(muon_sequence(name, 5), norm, muon_norm_margin(name)));
    }
    for (const int promotions : {0, 2, 4}) {
      maps.push_back(polynomial(high_pass_sequence(promotions, 5), norm));
    }
    maps.push_back(polynomial(cutoff_sequence(0.3, 5), norm));
    maps.push_back(polynomial(cutoff_sequence(0.1, 7), norm));
  }
  return maps;
}

std::vector<double> harmonic_spectrum(std::int64_t rank) {
  std::vector<double> values;
  for (std::int64_t i = 1; i <= rank; ++i) values.push_back(1.0 / static_cast<double>(i));
  return values;
}

class SpectralMaps : public testing::TestWithParam<CpuTarget> {
 protected:
  SpectralWorkspace workspace_{GetParam()};

  // Compares with U f(S / norm) V^T, where U, S and V are known by construction.
  template <class T>
  void expect_definition(const SingularDecomposition& x, double unit) {
    const RandomMatrix<double> exact = x.matrix();
    double square = 0.0, largest = 0.0;
    for (const double s : x.values) square += s * s, largest = std::max(largest, s);
    for (const SpectralMap& map : polynomial_maps()) {
      const bool spectral = map.normalization == Normalization::kSpectral;
      const double norm = map.norm_margin * (spectral ? largest : std::sqrt(square));
      const RandomMatrix<double> expected =
          x.mapped([&](double s) { return evaluate(map.sequence, s / norm); });
      const double bound = rounding_bound(map, x.values, unit) + 64 * kUnitRoundoff64;
      EXPECT_LE(
          frobenius_distance(applied(map, converted<T>(exact), workspace_), expected),
          bound)
          << exact.rows << " x " << exact.cols << ", first triple (" << map.sequence[0].a
          << ", " << map.sequence[0].b << ", " << map.sequence[0].c << "), spectral "
          << spectral;
    }
  }
};

TEST_P(SpectralMaps, EveryShapeAgreesWithItsDefinition) {
  constexpr std::int64_t kShapes[][2] = {{1, 1},   {1, 40},  {40, 1},  {2, 2},
                                         {3, 50},  {50, 3},  {33, 33}, {70, 65},
                                         {65, 70}, {20, 300}};
  for (const auto& [rows, cols] : kShapes) {
    const auto x = with_spectrum(rows, cols, harmonic_spectrum(std::min(rows, cols)), 5);
    expect_definition<double>(x, kUnitRoundoff64);
    expect_definition<float>(x, kUnitRoundoff32);
  }
}

TEST_P(SpectralMaps, RankDeficientInputsAgreeWithTheirDefinition) {
  for (const std::vector<double>& values :
       {std::vector<double>{2.0}, {1.0, 1.0}, {3.0, 1.0, 1e-3}, {1.0, 0.0, 0.5}}) {
    for (const auto& [rows, cols] :
         {std::pair<std::int64_t, std::int64_t>{12, 30}, {30, 12}}) {
      const auto x = with_spectrum(rows, cols, values, 6);
      expect_definition<double>(x, kUnitRoundoff64);
      expect_definition<float>(x, kUnitRoundoff32);
    }
  }
}

TEST_P(SpectralMaps, RankOneGivesItsSingularVectorsForEveryHighPass) {
  const auto x = with_spectrum(16, 24, {0.37}, 7);
  for (int promotions = 0; promotions <= 5; ++promotions) {
    const SpectralMap map = polynomial(high_pass_sequence(promotions, 5));
    const RandomMatrix<double> output = applied(map, x.matrix(), workspace_);
    const double bound = rounding_bound(map, x.values, kUnitRoundoff64);
    EXPECT_LE(frobenius_distance(output, x.mapped([](double) { return 1.0; })), bound);
  }
}

TEST_P(SpectralMaps, CloseSingularValuesDoNotFoolTheSpectralNorm) {
  // a factor 1e-6 apart, and a flat spectrum: where power iteration stops early
  for (const std::vector<double>& values :
       {std::vector<double>{1.0, 1.0 - 1e-6, 0.999, 0.5}, std::vector<double>(30, 1.0)}) {
    expect_definition<double>(with_spectrum(30, 40, values, 8), kUnitRoundoff64);
  }
}

TEST_P(SpectralMaps, ScaleDoesNotMatter) {
  const RandomMatrix<float> x = gaussian_matrix<float>(20, 30, 9);
  for (const SpectralMap& map : polynomial_maps()) {
    const RandomMatrix<float> plain = applied(map, x, workspace_);
    const double bound =
        2 * rounding_bound(map, singular_values<float>(x.view()), kUnitRoundoff32);
    for (const float scale : {1e-30f, 1e-20f, 0.3f, 1e20f, 1e30f}) {
      RandomMatrix<float> scaled = x;
      for (float& value : scaled.data) value *= scale;
      EXPECT_LE(frobenius_distance(applied(map, scaled, workspace_), plain), bound)
          << scale;
    }
    // powers of two scale without rounding
    for (const float scale : {0x1p-100f, 0.25f, 0x1p100f}) {
      RandomMatrix<float> scaled = x;
      for (float& value : scaled.data) value *= scale;
      EXPECT_EQ(applied(map, scaled, workspace_).data, plain.data) << scale;
    }
  }
}

TEST_P(SpectralMaps, TheEndsOfTheRangeOfDoubleWork) {
  const RandomMatrix<double> x = gaussian_matrix<double>(6, 9, 10);
  const SpectralMap map = polynomial(muon_sequence("classic", 5));
  const RandomMatrix<double> plain = applied(map, x, workspace_);
  for (const double scale : {0x1p-1000, 0x1p1000}) {
    RandomMatrix<double> scaled = x;
    for (double& value : scaled.data) value *= scale;
    EXPECT_EQ(applied(map, scaled, workspace_).data, plain.data) << scale;
  }
  // denormal numbers only, multiples of 2^-1074 and of 2^-149
  RandomMatrix<double> tiny = zero_matrix<double>(3, 3);
  RandomMatrix<float> tiny_float = zero_matrix<float>(3, 3);
  RandomMatrix<double> small_integers = zero_matrix<double>(3, 3);
  for (std::size_t i = 0; i < 9; ++i) {
    small_integers.data[i] = static_cast<double>((i * 5 + 2) % 9);
    tiny.data[i] = small_integers.data[i] * std::numeric_limits<double>::denorm_min();
    tiny_float.data[i] = static_cast<float>(small_integers.data[i]) *
                         std::numeric_limits<float>::denorm_min();
  }
  const RandomMatrix<double> expected = applied(map, small_integers, workspace_);
  const std::vector<double> values = singular_values<double>(small_integers.view());
  EXPECT_LE(frobenius_distance(applied(map, tiny, workspace_), expected),
            2 * rounding_bound(map, values, kUnitRoundoff64));
  EXPECT_LE(frobenius_distance(applied(map, tiny_float, workspace_), expected),
            rounding_bound(map, values, kUnitRoundoff32));
}

TEST_P(SpectralMaps, ZeroGivesZeroWithZeroStatistics) {
  std::vector<SpectralMap> maps = polynomial_maps();
  maps.push_back({.kind = SpectralMap::Kind::kLowRank, .rank = 2});
  maps.push_back({.kind = SpectralMap::Kind::kLowPass, .cutoff = 0.5});
  for (const SpectralMap& map : maps) {
    SpectrumStatistics statistics = {1, 1, 1, 1, 1};
    const RandomMatrix<float> zero = zero_matrix<float>(4, 7);
    EXPECT_EQ(applied(map, zero, workspace_, &statistics).data, zero.data);
    EXPECT_EQ(statistics.frobenius_norm, 0.0);
    EXPECT_EQ(statistics.sigma_max, 0.0);
    EXPECT_EQ(statistics.stable_rank, 0.0);
    EXPECT_EQ(statistics.directions_passed, 0.0);
    EXPECT_EQ(statistics.energy_kept, 0.0);
  }
}

TEST_P(SpectralMaps, ChangingTheSignChangesTheSignOnly) {
  const RandomMatrix<float> x = gaussian_matrix<float>(20, 30, 11);
  RandomMatrix<float> negative = x;
  for (float& value : negative.data) value = -value;
  for (const SpectralMap& map : polynomial_maps()) {
    const RandomMatrix<float> plain = applied(map, x, workspace_);
    const RandomMatrix<float> output = applied(map, negative, workspace_);
    for (std::size_t i = 0; i < plain.data.size(); ++i) {
      EXPECT_EQ(output.data[i], -plain.data[i]);
    }
  }
}

TEST_P(SpectralMaps, RotationsOnEitherSideCommuteWithTheMap) {
  const RandomMatrix<double> x = gaussian_matrix<double>(14, 23, 12);
  const RandomMatrix<double> p = orthonormal_columns(14, 14, 13);
  const RandomMatrix<double> q = orthonormal_columns(23, 23, 14);
  const RandomMatrix<double> rotated = reference_product(reference_product(p, x), q);
  const std::vector<double> values = singular_values<double>(x.view());
  for (const SpectralMap& map : polynomial_maps()) {
    const RandomMatrix<double> expected =
        reference_product(reference_product(p, applied(map, x, workspace_)), q);
    // one bound for each application; rotating adds 2 products of 23 terms at most to the
    // input
    const double bound = (2 + 23) * rounding_bound(map, values, kUnitRoundoff64);
    EXPECT_LE(frobenius_distance(applied(map, rotated, workspace_), expected), bound);
    // scaling a row is no rotation: the map must notice
    RandomMatrix<double> sheared = x;
    for (std::int64_t j = 0; j < 23; ++j) sheared(0, j) *= 2.0;
    RandomMatrix<double> wrong = applied(map, x, workspace_);
    for (std::int64_t j = 0; j < 23; ++j) wrong(0, j) *= 2.0;
    double size = 0.0;
    for (const double value : wrong.data) size += value * value;
    if (size > 1e-6) {
      EXPECT_GT(frobenius_distance(applied(map, sheared, workspace_), wrong),
                1e3 * bound);
    }
  }
}

TEST_P(SpectralMaps, TransposingCommutesWithTheMap) {
  const RandomMatrix<float> x = gaussian_matrix<float>(14, 23, 15);
  for (const SpectralMap& map : polynomial_maps()) {
    EXPECT_EQ(applied(map, transposed(x), workspace_).data,
              transposed(applied(map, x, workspace_)).data);
  }
}

TEST_P(SpectralMaps, TheBatchAndTheStrideChangeNothing) {
  for (const SpectralMap& map : polynomial_maps()) {
    // four blocks of one matrix, beside a matrix of another shape
    const RandomMatrix<float> x = gaussian_matrix<float>(12, 40, 16);
    const RandomMatrix<float> other = gaussian_matrix<float>(70, 5, 17);
    RandomMatrix<float> output = zero_matrix<float>(12, 40);
    RandomMatrix<float> other_output = zero_matrix<float>(70, 5);
    std::vector<ConstMatrixView> from;
    std::vector<MatrixView> to;
    for (int head = 0; head < 4; ++head) {
      from.push_back(x.view().block(0, 10 * head, 12, 10));
      to.push_back(output.view().block(0, 10 * head, 12, 10));
    }
    from.push_back(other.view());
    to.push_back(other_output.view());
    std::vector<SpectrumStatistics> statistics(5);
    ASSERT_TRUE(apply_spectral_map<float>(map, from, to, workspace_, statistics));

    for (int head = 0; head < 4; ++head) {
      RandomMatrix<float> alone = zero_matrix<float>(12, 10);
      for (std::int64_t i = 0; i < 12; ++i) {
        for (std::int64_t j = 0; j < 10; ++j) alone(i, j) = x(i, 10 * head + j);
      }
      SpectralWorkspace fresh(GetParam());
      SpectrumStatistics expected;
      const RandomMatrix<float> result = applied(map, alone, fresh, &expected);
      for (std::int64_t i = 0; i < 12; ++i) {
        for (std::int64_t j = 0; j < 10; ++j) ASSERT_EQ(to[head](i, j), result(i, j));
      }
      EXPECT_EQ(statistics[head].directions_passed, expected.directions_passed);
      EXPECT_EQ(statistics[head].sigma_max, expected.sigma_max);
    }
    EXPECT_EQ(applied(map, other, workspace_).data, other_output.data);
  }
}

TEST_P(SpectralMaps, StatisticsDescribeTheSpectrum) {
  const auto x = with_spectrum(9, 15, {4.0, 2.0, 1.0}, 18);
  const double square = 16.0 + 4.0 + 1.0;
  for (const SpectralMap& map : polynomial_maps()) {
    const double norm =
        map.norm_margin *
        (map.normalization == Normalization::kSpectral ? 4.0 : std::sqrt(square));
    double passed = 0.0, kept = 0.0;
    for (const double s : x.values) {
      const double f = evaluate(map.sequence, s / norm);
      passed += f * f, kept += s * f;
    }
    SpectrumStatistics statistics;
    applied(map, x.matrix(), workspace_, &statistics);
    const double bound = rounding_bound(map, x.values, kUnitRoundoff64);
    EXPECT_NEAR(statistics.frobenius_norm, std::sqrt(square), 1e-14);
    EXPECT_NEAR(statistics.sigma_max, 4.0, 1e-14 * 4.0);
    EXPECT_NEAR(statistics.stable_rank, square / 16.0, 1e-13);
    EXPECT_NEAR(statistics.directions_passed, passed, 4 * (1 + passed) * bound);
    // <X, O>^2 / ||O||^2 moves by twice the relative error of O, and twice that for both
    EXPECT_NEAR(statistics.energy_kept, kept * kept / (square * passed),
                4 * bound / std::sqrt(passed) + 1e-14);
  }
}

TEST_P(SpectralMaps, SuppressedValuesAreNeverDenormalAndTheCallerKeepsItsOwn) {
  volatile float tiny = 1e-30f;
  const RandomMatrix<float> x = gaussian_matrix<float>(64, 64, 19);
  bool zero_seen = false;
  for (int steps = 1; steps <= 8; ++steps) {
    const SpectralMap map = polynomial(high_pass_sequence(0, steps));
    for (const float value : applied(map, x, workspace_).data) {
      ASSERT_NE(std::fpclassify(value), FP_SUBNORMAL) << steps;
      zero_seen = zero_seen || value == 0.0f;
    }
  }
  EXPECT_TRUE(zero_seen);  // it did get below the range of float
  EXPECT_NE(tiny * 1e-10f, 0.0f);
}

TEST_P(SpectralMaps, NonFiniteInputIsRefusedAndNothingIsWritten) {
  const auto refused = [&]<class T>(T bad) {
    std::vector<SpectralMap> maps = {
        polynomial(muon_sequence("classic", 5)),
        {.kind = SpectralMap::Kind::kLowRank, .rank = 1},
        {.kind = SpectralMap::Kind::kLowPass, .cutoff = 0.5}};
    for (const SpectralMap& map : maps) {
      const RandomMatrix<T> good = converted<T>(gaussian_matrix<float>(5, 8, 20));
      RandomMatrix<T> poisoned = good;
      poisoned(4, 7) = bad;
      RandomMatrix<T> outputs[2] = {good, good};
      const MatrixViewOf<const T> from[2] = {good.view(), poisoned.view()};
      const MatrixViewOf<T> to[2] = {outputs[0].view(), outputs[1].view()};
      SpectrumStatistics statistics[2] = {{7, 7, 7, 7, 7}, {7, 7, 7, 7, 7}};
      EXPECT_FALSE(apply_spectral_map<T>(map, from, to, workspace_, statistics));
      for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(converted<float>(outputs[i]).data, converted<float>(good).data);
        EXPECT_EQ(statistics[i].frobenius_norm, 7);
      }
    }
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, -nan, infinity, -infinity}) {
    refused(bad);
    refused(static_cast<double>(bad));
    refused(bfloat16(bad));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SpectralMaps,
                         testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
