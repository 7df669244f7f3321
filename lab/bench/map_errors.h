// SPDX-License-Identifier: Apache-2.0
// How far one application of a map in low precision lies from the same iteration in f64.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lab/bench/workload.h"
#include "pion/spectral/spectral_map.h"

namespace pion::bench {

// ||O - O*|| / ||O*|| in the Frobenius and the spectral norm.
struct MapError {
  double frobenius = 0, spectral = 0;
};

// pion's map of x, (rows, cols), in f64 or f32.
at::Tensor exact_map(const at::Tensor& x, const SpectralMap& map);
at::Tensor pion_map(const at::Tensor& x, const SpectralMap& map, Precision precision);

MapError map_error(const at::Tensor& result, const at::Tensor& exact);

// Floating-point operations of exact_map, for those who want to know before they ask.
double exact_map_flops(std::int64_t rows, std::int64_t cols, const SpectralMap& map);

// The spectra of the error tables, and an f32 matrix (rows, cols) with random singular
// vectors that has one:
//
//   power_law    sigma_i = 1 / i
//   gaussian     white noise: nearly flat
//   low_rank     rank 8, and white noise of 1e-3 of its norm
//   log_spaced   1 to 1e-4 in equal ratios
std::vector<std::string> spectrum_names();
at::Tensor matrix_with_spectrum(const std::string& name, std::int64_t rows,
                                std::int64_t cols, std::uint64_t seed);

// One line of an error table.
struct ErrorRow {
  std::string shape, spectrum, rule;
  double exact_norm = 0;  // ||O*||_F; where it vanishes, relative errors mean nothing
  MapError direct_bf16;   // the peers' loop, addmm_bf16
  std::optional<MapError> fast, accurate, f32;  // those that were asked for
};
ErrorRow measure_errors(std::int64_t rows, std::int64_t cols, const std::string& spectrum,
                        const std::string& rule_label,
                        const std::vector<Precision>& precisions);

}  // namespace pion::bench
