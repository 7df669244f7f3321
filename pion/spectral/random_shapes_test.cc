// SPDX-License-Identifier: Apache-2.0
// Random shapes, strides, scales, maps and element types, many of them: run with
// sanitizers it finds reads and writes outside the matrices; without, wrong numbers.
#include <gtest/gtest.h>

#include <cmath>

#include "pion/kernels/cpu_target.h"
#include "pion/spectral/spectral_map.h"
#include "tests/spectral_map_bound.h"

namespace pion {
namespace {

SpectralMap random_map(RandomNumbers& random) {
  SpectralMap map;
  const int steps = static_cast<int>(random.integer(1, 8));
  if (random.integer(0, 1) == 1) map.normalization = Normalization::kSpectral;
  switch (random.integer(0, 3)) {
    case 0: {
      const std::vector<std::string> names = muon_sequence_names();
      const std::string& name = names[static_cast<std::size_t>(
          random.integer(0, static_cast<std::int64_t>(names.size()) - 1))];
      map.sequence = muon_sequence(name, steps);
      map.norm_margin = muon_norm_margin(name);
      return map;
    }
    case 1:
      map.sequence =
          high_pass_sequence(static_cast<int>(random.integer(0, steps)), steps);
      return map;
    default: {
      const double smallest = smallest_cutoff(steps);
      map.sequence = cutoff_sequence(
          smallest + random.uniform() * (kLargestCutoff - smallest), steps);
      return map;
    }
  }
}

// The iteration as it is written in the header, in double without any kernel.
RandomMatrix<double> definition(const SpectralMap& map, RandomMatrix<double> x) {
  const bool tall = x.rows > x.cols;
  if (tall) x = transposed(x);
  double norm = 0.0;
  if (map.normalization == Normalization::kSpectral) {
    norm = singular_values<double>(x.view()).front();
  } else {
    for (const double value : x.data) norm = std::hypot(norm, value);
  }
  for (double& value : x.data) value /= norm * map.norm_margin;
  for (const Quintic& p : map.sequence) {
    const RandomMatrix<double> gram = reference_product(x, transposed(x));
    const RandomMatrix<double> third = reference_product(gram, x);
    const RandomMatrix<double> fifth = reference_product(gram, third);
    for (std::size_t i = 0; i < x.data.size(); ++i) {
      x.data[i] = p.a * x.data[i] + p.b * third.data[i] + p.c * fifth.data[i];
    }
  }
  return tall ? transposed(x) : x;
}

template <class T>
void check_one(RandomNumbers& random, SpectralWorkspace& workspace) {
  const std::int64_t rows = random.integer(1, 40), cols = random.integer(1, 40);
  const std::int64_t stride = cols + random.integer(0, 3);
  const SpectralMap map = random_map(random);
  const float scale = std::exp2(static_cast<float>(random.integer(-100, 100)));

  // exactly as much memory as the view reaches: the last row has no gap behind it
  const auto size = static_cast<std::size_t>((rows - 1) * stride + cols);
  std::vector<T> input(size), output(size);
  for (T& value : input)
    value = static_cast<T>(scale * static_cast<float>(random.normal()));
  const MatrixViewOf<const T> from = {input.data(), rows, cols, stride};
  const MatrixViewOf<T> to = {output.data(), rows, cols, stride};
  SpectrumStatistics statistics;
  ASSERT_TRUE(
      apply_spectral_map<T>(map, {&from, 1}, {&to, 1}, workspace, {&statistics, 1}));

  RandomMatrix<double> wide = zero_matrix<double>(rows, cols), result = wide;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      wide(i, j) = static_cast<double>(from(i, j)),
              result(i, j) = static_cast<double>(to(i, j));
    }
  }
  const double unit = std::is_same_v<T, double> ? kUnitRoundoff64 : kUnitRoundoff32;
  const double bound = rounding_bound(map, singular_values<double>(wide.view()), unit);
  double stored = 0.0;  // rounding of the output to bfloat16
  if constexpr (std::is_same_v<T, bfloat16>) {
    stored = kUnitRoundoff16 * (bound + std::sqrt(statistics.directions_passed));
  }
  // the definition in double has roundings of its own
  EXPECT_LE(frobenius_distance(result, definition(map, wide)), 2 * bound + stored)
      << rows << " x " << cols << ", stride " << stride << ", " << map.sequence.size()
      << " steps";
}

TEST(RandomShapes, AgreeWithTheDefinition) {
  RandomNumbers random(51);
  for (const CpuTarget target : supported_cpu_targets()) {
    SpectralWorkspace workspace(target);
    for (int i = 0; i < 150; ++i) {
      check_one<float>(random, workspace);
      check_one<double>(random, workspace);
      check_one<bfloat16>(random, workspace);
    }
  }
}

}  // namespace
}  // namespace pion
