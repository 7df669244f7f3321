// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/singular_bands.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using torch::Tensor;

Tensor orthogonal(std::int64_t rows, std::int64_t columns) {
  return std::get<0>(torch::linalg_qr(torch::randn({rows, columns}, torch::kDouble)));
}

// G has singular values 20, 19, ..., 1; G' has value a_i along the i-th direction, and
// more across directions, which must not count.
TEST(SingularBands, FollowTheDefinition) {
  torch::manual_seed(1);
  const Tensor u = orthogonal(24, 20), v = orthogonal(30, 20);
  const Tensor s = torch::arange(20, 0, -1, torch::kDouble);
  const Tensor a = torch::randn({20}, torch::kDouble);
  const Tensor across = torch::randn({20, 20}, torch::kDouble).fill_diagonal_(0.0);
  const Tensor g = u.matmul(torch::diag(s)).matmul(v.transpose(0, 1));
  const Tensor other = u.matmul(torch::diag(a) + across).matmul(v.transpose(0, 1));
  const Json json = singular_band_signal({g}, {other});
  const auto wanted = [&](int first, int end) {
    return (a.slice(0, first, end).sum() / s.slice(0, first, end).sum()).item<double>();
  };
  EXPECT_NEAR(double(json["signal_1"]), wanted(0, 1), 1e-12);
  EXPECT_NEAR(double(json["signal_2_4"]), wanted(1, 4), 1e-12);
  EXPECT_NEAR(double(json["signal_5_16"]), wanted(4, 16), 1e-12);
  EXPECT_NEAR(double(json["signal_17_64"]), wanted(16, 20), 1e-12);
  EXPECT_FALSE(json.contains("signal_65_up"));
}

TEST(SingularBands, AreOverAllMatricesAndTheirDirections) {
  torch::manual_seed(2);
  const Tensor g = torch::randn({8, 6}, torch::kDouble);
  const Tensor zero = torch::zeros({8, 6}, torch::kDouble);
  const Json json = singular_band_signal({g, 2 * g, zero}, {g, g, g});
  for (const char* name : {"signal_1", "signal_2_4", "signal_5_16"})
    EXPECT_NEAR(double(json[name]), 2.0 / 3, 1e-12) << name;  // (s + s) / (s + 2 s)
  // of rank 2: what G' has elsewhere is no direction of G
  const Tensor low = orthogonal(8, 2).matmul(orthogonal(6, 2).transpose(0, 1));
  EXPECT_FALSE(singular_band_signal({low}, {g}).contains("signal_5_16"));
  EXPECT_TRUE(singular_band_signal({zero}, {g}).empty());
}

// Rank 1 and noise in both: the first direction repeats, the rest does not. Along the
// i-th direction of independent noise G' has mean 0 and deviation 1, and a band of 12
// directions has s of at least 12 x 8 in all, so that 6 deviations are below 0.25.
TEST(SingularBands, ToldApartIsSignalFromNoise) {
  torch::manual_seed(3);
  const Tensor signal = 200 * orthogonal(64, 1).matmul(orthogonal(64, 1).transpose(0, 1));
  const auto noise = [] { return torch::randn({64, 64}, torch::kDouble); };
  const Json json = singular_band_signal({signal + noise()}, {signal + noise()});
  EXPECT_NEAR(double(json["signal_1"]), 1.0, 0.1);
  EXPECT_NEAR(double(json["signal_5_16"]), 0.0, 0.25);
}

TEST(SingularBands, RefuseWhatDoesNotFit) {
  const Tensor g = torch::ones({3, 2});
  expect_says(message_of([&] { singular_band_signal({g, g}, {g}); }), "each of 2, got 1");
  expect_says(message_of([&] { singular_band_signal({g}, {g.transpose(0, 1)}); }),
              "gradient 0");
}

}  // namespace
}  // namespace pion::lab
