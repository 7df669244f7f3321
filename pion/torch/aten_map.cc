// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_map.h"

#include <ATen/ATen.h>

#include <limits>
#include <vector>

namespace pion {
namespace {

// Divides by the largest entry first, so that no square under- or overflows.
at::Tensor frobenius_normalized(const at::Tensor& x) {
  const at::Tensor largest = x.abs().amax({1, 2}, /*keepdim=*/true);
  const at::Tensor scaled = x / at::where(largest > 0, largest, 1);
  const at::Tensor norm = at::linalg_vector_norm(scaled, 2, at::IntArrayRef{1, 2}, true);
  return scaled / at::where(norm > 0, norm, 1);
}

// tr(A P) / tr(P) with P = A^q, q = 2^12: the mean of A's eigenvalues weighted by their
// q-th powers. It exceeds (1 - e) lambda_1 for e = (1 + ln m) / q, 0.23 % at m = 4096;
// sigma_1, its root, is off by half of that. No start vector, and nothing to wait for.
at::Tensor largest_eigenvalue(const at::Tensor& gram) {
  const auto normalized = [](const at::Tensor& a) {
    const at::Tensor norm = at::linalg_vector_norm(a, 2, at::IntArrayRef{1, 2}, true);
    return a / at::where(norm > 0, norm, 1);
  };
  at::Tensor power = normalized(gram);
  for (int i = 0; i < 12; ++i) power = normalized(power.bmm(power));
  const at::Tensor trace = power.diagonal(0, 1, 2).sum(-1).view({-1, 1, 1});
  return (gram * power).sum({1, 2}, true) / at::where(trace > 0, trace, 1);
}

at::Tensor polynomial(const SpectralMap& map, at::Tensor x) {
  const bool transposed = x.size(1) > x.size(2);
  if (transposed) x = x.transpose(1, 2);
  if (map.normalization == Normalization::kSpectral) {
    const at::Tensor sigma = largest_eigenvalue(x.bmm(x.transpose(1, 2))).sqrt();
    x = x / at::where(sigma > 0, sigma, 1);
  }
  if (map.norm_margin != 1.0) x = x / map.norm_margin;
  const at::ScalarType type = x.scalar_type();
  if (map.precision == Precision::kFast && type == at::kFloat) x = x.to(at::kBFloat16);
  for (const Quintic& p : map.sequence) {
    const at::Tensor gram = x.bmm(x.transpose(1, 2));
    x = at::baddbmm(x, at::baddbmm(gram, gram, gram, p.b, p.c), x, p.a, 1);
  }
  x = x.to(type);
  return transposed ? x.transpose(1, 2) : x;
}

// x has Frobenius norm 1.
at::Tensor exact(const SpectralMap& map, const at::Tensor& x) {
  auto [u, s, vt] = at::linalg_svd(x, /*full_matrices=*/false);
  const double eps = x.scalar_type() == at::kDouble
                         ? std::numeric_limits<double>::epsilon()
                         : std::numeric_limits<float>::epsilon();
  const double zero = static_cast<double>(std::max(x.size(1), x.size(2))) * eps;
  at::Tensor keep = s > zero * s.narrow(1, 0, 1);
  if (map.kind == SpectralMap::Kind::kLowRank) {
    keep = keep & (at::arange(s.size(1), s.options().dtype(at::kLong)) < map.rank);
  } else {
    keep = keep & (s < map.cutoff);
  }
  return (u * keep.unsqueeze(1)).bmm(vt);
}

}  // namespace

at::Tensor aten_spectral_map(const SpectralMap& map, const at::Tensor& x) {
  const at::Tensor normalized = frobenius_normalized(x);
  return map.kind == SpectralMap::Kind::kPolynomial ? polynomial(map, normalized)
                                                    : exact(map, normalized);
}

at::Tensor aten_relative_sigma(const at::Tensor& x) {
  const at::Tensor normalized = frobenius_normalized(x);
  const at::Tensor wide = x.size(1) > x.size(2) ? normalized.transpose(1, 2) : normalized;
  return largest_eigenvalue(wide.bmm(wide.transpose(1, 2))).sqrt();
}

}  // namespace pion
