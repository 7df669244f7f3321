// SPDX-License-Identifier: Apache-2.0
// tests/vectors/spectral_maps.json: outputs computed from the SVD in float64, apart from
// this code.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "pion/kernels/cpu_target.h"
#include "pion/spectral/spectral_map.h"
#include "tests/spectral_map_bound.h"

namespace pion {
namespace {

struct Vector {
  std::string name;
  SpectralMap map;
  RandomMatrix<double> input, expected;
  int heads = 1, head_axis = 0;
};

Vector parsed(const nlohmann::json& entry) {
  Vector vector;
  const auto rows = entry.at("rows").get<std::int64_t>(),
             cols = entry.at("cols").get<std::int64_t>();
  vector.input = {rows, cols, entry.at("input").get<std::vector<double>>()};
  vector.expected = {rows, cols, entry.at("expected").get<std::vector<double>>()};
  for (const auto& triple : entry.at("coefficients")) {
    vector.map.sequence.push_back({triple.at(0), triple.at(1), triple.at(2)});
  }
  const std::string normalization = entry.value("normalization", "frobenius");
  if (normalization == "spectral") vector.map.normalization = Normalization::kSpectral;
  vector.heads = entry.value("heads", 1);
  vector.head_axis = entry.value("head_axis", 0);
  vector.name = entry.value("kind", "per head") + ", " +
                entry.at("map").get<std::string>() + ", " + normalization;
  return vector;
}

const std::vector<Vector>& vectors(const std::string& list) {
  static const nlohmann::json file =
      nlohmann::json::parse(std::ifstream("tests/vectors/spectral_maps.json"));
  static std::map<std::string, std::vector<Vector>> cache;
  std::vector<Vector>& found = cache[list];
  if (found.empty()) {
    for (const auto& entry : file.at(list)) found.push_back(parsed(entry));
  }
  return found;
}

class SpectralVectors : public testing::TestWithParam<CpuTarget> {
 protected:
  SpectralWorkspace workspace_{GetParam()};
};

TEST_P(SpectralVectors, AllCasesInDouble) {
  ASSERT_EQ(vectors("cases").size(), 170u);
  for (const Vector& vector : vectors("cases")) {
    const double bound = rounding_bound(
        vector.map, singular_values<double>(vector.input.view()), kUnitRoundoff64);
    EXPECT_LT(bound, 5e-11) << vector.name;  // that is how tight it gets; typically 1e-12
    const RandomMatrix<double> output = applied(vector.map, vector.input, workspace_);
    // their SVD in float64 has a share of the same size
    EXPECT_LE(frobenius_distance(output, vector.expected), 2 * bound) << vector.name;
    // worst entry of any case was 4e-14 on every target
    for (std::size_t i = 0; i < output.data.size(); ++i) {
      ASSERT_NEAR(output.data[i], vector.expected.data[i], 1e-12) << vector.name;
    }
  }
}

TEST_P(SpectralVectors, AllCasesInFloat) {
  for (const Vector& vector : vectors("cases")) {
    // the rounding of the input is the 4 u F with which the bound starts
    const double bound = rounding_bound(
        vector.map, singular_values<double>(vector.input.view()), kUnitRoundoff32);
    const RandomMatrix<float> output =
        applied(vector.map, converted<float>(vector.input), workspace_);
    EXPECT_LE(frobenius_distance(output, vector.expected), bound) << vector.name;
    // worst entry of any case was 1.1e-5 on every target
    for (std::size_t i = 0; i < output.data.size(); ++i) {
      ASSERT_NEAR(output.data[i], vector.expected.data[i], 1e-4) << vector.name;
    }
  }
}

// The rounding of the input to 8 bits may move an output anywhere between 0 and 1, so
// bfloat16 is held to the double path on the rounded input.
TEST_P(SpectralVectors, AllCasesInBfloat16) {
  for (const Vector& vector : vectors("cases")) {
    const RandomMatrix<bfloat16> input =
        converted<bfloat16>(converted<float>(vector.input));
    const RandomMatrix<double> wide = converted<double>(converted<float>(input));
    const RandomMatrix<double> expected = applied(vector.map, wide, workspace_);
    double norm = 0.0;
    for (const double value : expected.data) norm += value * value;
    const double bound =
        rounding_bound(vector.map, singular_values<double>(wide.view()), kUnitRoundoff32);
    const RandomMatrix<float> output =
        converted<float>(applied(vector.map, input, workspace_));
    // and each entry of the output is rounded once more
    EXPECT_LE(frobenius_distance(output, expected),
              (1 + kUnitRoundoff16) * bound + kUnitRoundoff16 * std::sqrt(norm))
        << vector.name;
  }
}

// Heads are views on blocks; the same blocks as matrices of their own give the same bits.
TEST_P(SpectralVectors, PerHeadByViewsOnBlocks) {
  ASSERT_EQ(vectors("per_head").size(), 6u);
  for (const Vector& vector : vectors("per_head")) {
    RandomMatrix<double> output =
        zero_matrix<double>(vector.input.rows, vector.input.cols);
    const bool by_rows = vector.head_axis == 0;
    const std::int64_t rows = vector.input.rows / (by_rows ? vector.heads : 1);
    const std::int64_t cols = vector.input.cols / (by_rows ? 1 : vector.heads);
    std::vector<MatrixViewOf<const double>> from;
    std::vector<MatrixViewOf<double>> to;
    for (int head = 0; head < vector.heads; ++head) {
      const std::int64_t row = by_rows ? head * rows : 0, col = by_rows ? 0 : head * cols;
      from.push_back(vector.input.view().block(row, col, rows, cols));
      to.push_back(output.view().block(row, col, rows, cols));
    }
    ASSERT_TRUE(apply_spectral_map<double>(vector.map, from, to, workspace_));
    for (std::size_t i = 0; i < output.data.size(); ++i) {
      EXPECT_NEAR(output.data[i], vector.expected.data[i], 1e-12) << vector.name;
    }
    for (int head = 0; head < vector.heads; ++head) {
      RandomMatrix<double> alone = zero_matrix<double>(rows, cols);
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) alone(i, j) = from[head](i, j);
      }
      const RandomMatrix<double> result = applied(vector.map, alone, workspace_);
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) {
          EXPECT_EQ(result(i, j), to[head](i, j)) << vector.name << ", head " << head;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SpectralVectors,
                         testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& tested) {
                           return std::string(cpu_target_name(tested.param));
                         });

}  // namespace
}  // namespace pion
