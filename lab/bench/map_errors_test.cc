// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/map_errors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lab/bench/matrix_units.h"

namespace pion::bench {
namespace {

TEST(MapErrors, AreRelativeFrobeniusAndSpectralNorms) {
  const at::Tensor exact = at::diag(at::tensor({4.0, 3.0}, at::kDouble));
  const at::Tensor result = exact + at::diag(at::tensor({0.0, 0.5}, at::kDouble));
  const MapError error = map_error(result, exact);
  EXPECT_DOUBLE_EQ(error.frobenius, 0.5 / 5);
  EXPECT_NEAR(error.spectral, 0.5 / 4, 1e-15);
}

TEST(MapErrors, SpectraAreWhatTheirNamesSay) {
  const auto values = [](const char* name) {
    return at::linalg_svdvals(matrix_with_spectrum(name, 24, 60, 1).to(at::kDouble));
  };
  // f32 rounding moves a singular value by at most ||E||_F <= 2^-24 ||X||_F, here below
  // 2^-24 sqrt(24)
  const double gap = 0x1p-24 * 5;
  const at::Tensor power = values("power_law");
  const at::Tensor log = values("log_spaced");
  for (int i = 0; i < 24; ++i) {
    EXPECT_NEAR(power[i].item<double>(), 1.0 / (i + 1), gap);
    EXPECT_NEAR(log[i].item<double>(), std::pow(1e-4, i / 23.0), gap);
  }
  const at::Tensor low = values("low_rank");
  EXPECT_GT(low[7].item<double>(), 0.05);
  EXPECT_LT(low[8].item<double>(), 1e-3);  // one direction of noise of norm 1e-3
  EXPECT_THROW(matrix_with_spectrum("flat", 4, 4, 1), std::invalid_argument);
}

// The f64 map has none, f32 at most what 5 steps of f32 sums allow, bf16 more than f32.
TEST(MapErrors, GrowAsPrecisionFalls) {
  for (const std::string& spectrum : spectrum_names()) {
    const ErrorRow row =
        measure_errors(32, 80, spectrum, "muon",
                       {Precision::kFast, Precision::kAccurate, Precision::kF32});
    EXPECT_GT(row.exact_norm, 1) << spectrum;
    // f32 input values are exact in f64. Muon's slope at 0 is 3.4445^5 = 485: roundings
    // of a few 2^-24 become 485 * 80 * 2^-24 = 2e-3 at most
    EXPECT_LT(row.f32->frobenius, 2e-3) << spectrum;
    EXPECT_GT(row.direct_bf16.frobenius, row.f32->frobenius) << spectrum;
    EXPECT_GT(row.direct_bf16.frobenius, 1e-4) << spectrum;
    EXPECT_TRUE(std::isfinite(row.fast->spectral) &&
                std::isfinite(row.accurate->spectral));
  }
}

TEST(MatrixUnits, RunWhereTheCpuHasThem) {
  // an illegal instruction would end the process
  if (has_bf16_dot()) bf16_dot_rounds(10);
  if (has_bf16_tiles()) bf16_tile_rounds(10);
}

}  // namespace
}  // namespace pion::bench
