// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/map_errors.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lab/bench/sides.h"
#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

template <class T>
at::Tensor mapped(const at::Tensor& x, const SpectralMap& map) {
  const at::Tensor input = x.to(c10::CppTypeToScalarType<T>::value).contiguous();
  const at::Tensor output = at::empty_like(input);
  const MatrixViewOf<const T> from{input.template const_data_ptr<T>(), input.size(0),
                                   input.size(1), input.size(1)};
  const MatrixViewOf<T> to{output.template data_ptr<T>(), input.size(0), input.size(1),
                           input.size(1)};
  SpectralWorkspace workspace;
  apply_spectral_map<T>(map, {&from, 1}, {&to, 1}, workspace);
  return output;
}

double frobenius_norm(const at::Tensor& x) { return at::norm(x).item<double>(); }

// sigma_1, as the root of the largest eigenvalue of the smaller Gram matrix.
double spectral_norm(const at::Tensor& x) {
  const at::Tensor wide = x.size(0) <= x.size(1) ? x : x.t();
  const double largest = at::linalg_eigvalsh(at::mm(wide, wide.t())).max().item<double>();
  return std::sqrt(std::max(largest, 0.0));
}

at::Tensor orthonormal_columns(std::int64_t rows, std::int64_t cols,
                               at::Generator random) {
  return std::get<0>(at::linalg_qr(at::randn({rows, cols}, random, at::kDouble)));
}

}  // namespace

at::Tensor exact_map(const at::Tensor& x, const SpectralMap& map) {
  return mapped<double>(x, map);
}

at::Tensor pion_map(const at::Tensor& x, const SpectralMap& map, Precision precision) {
  SpectralMap chosen = map;
  chosen.precision = precision;
  return mapped<float>(x, chosen);
}

MapError map_error(const at::Tensor& result, const at::Tensor& exact) {
  const at::Tensor gap = result.to(at::kDouble) - exact;
  return {frobenius_norm(gap) / frobenius_norm(exact),
          spectral_norm(gap) / spectral_norm(exact)};
}

double exact_map_flops(std::int64_t rows, std::int64_t cols, const SpectralMap& map) {
  const auto m = static_cast<double>(std::min(rows, cols));
  const auto n = static_cast<double>(std::max(rows, cols));
  return static_cast<double>(map.sequence.size()) * (4 * m * m * n + 2 * m * m * m);
}

std::vector<std::string> spectrum_names() {
  return {"power_law", "gaussian", "low_rank", "log_spaced"};
}

at::Tensor matrix_with_spectrum(const std::string& name, std::int64_t rows,
                                std::int64_t cols, std::uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  const std::int64_t rank = std::min(rows, cols);
  if (name == "gaussian") return at::randn({rows, cols}, random);
  if (name == "low_rank") {
    const std::int64_t few = std::min<std::int64_t>(8, rank);
    const at::Tensor signal =
        at::mm(at::randn({rows, few}, random), at::randn({few, cols}, random));
    const at::Tensor noise = at::randn({rows, cols}, random);
    return signal / signal.norm() + 1e-3 * noise / noise.norm();
  }
  at::Tensor values;
  if (name == "power_law") {
    values = at::arange(1, rank + 1, at::kDouble).reciprocal();
  } else if (name == "log_spaced") {
    values = at::logspace(0, -4, rank, 10.0, at::kDouble);
  } else {
    throw std::invalid_argument("matrix_with_spectrum: unknown spectrum \"" + name +
                                "\"");
  }
  const at::Tensor left = orthonormal_columns(rows, rank, random);
  const at::Tensor right = orthonormal_columns(cols, rank, random);
  return at::mm(left * values, right.t()).to(at::kFloat);
}

ErrorRow measure_errors(std::int64_t rows, std::int64_t cols, const std::string& spectrum,
                        const std::string& rule_label,
                        const std::vector<Precision>& precisions) {
  constexpr std::uint64_t kSeed = 7;
  ErrorRow row{std::to_string(rows) + "x" + std::to_string(cols), spectrum, rule_label};
  const SpectralMap map = rule_map(make_labelled_rule(rule_label), rows, cols);
  const at::Tensor x = matrix_with_spectrum(spectrum, rows, cols, kSeed);
  const at::Tensor exact = exact_map(x, map);
  row.exact_norm = frobenius_norm(exact);
  const at::Tensor narrow = x.to(at::kBFloat16);
  row.direct_bf16 = map_error(peer_map(narrow, map.sequence, /*inside=*/true), exact);
  for (const Precision precision : precisions) {
    const MapError error = map_error(pion_map(x, map, precision), exact);
    (precision == Precision::kFast       ? row.fast
     : precision == Precision::kAccurate ? row.accurate
                                         : row.f32) = error;
  }
  return row;
}

}  // namespace pion::bench
