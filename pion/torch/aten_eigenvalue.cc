// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_eigenvalue.h"

#include <ATen/ATen.h>

#include "pion/torch/aten_product.h"

namespace pion {
namespace {

constexpr int kSquarings = 5, kIterations = 16;
constexpr std::int64_t kVectors = 8;

at::Tensor or_one(const at::Tensor& size) { return at::where(size > 0, size, 1); }

at::Tensor frobenius(const at::Tensor& a) {
  return or_one(at::linalg_vector_norm(a, 2, at::IntArrayRef{1, 2}, /*keepdim=*/true));
}

// (1, rows, kVectors): numbers that look random and are the same everywhere.
at::Tensor start_vectors(std::int64_t rows, const at::TensorOptions& options) {
  const at::Tensor index = at::arange(rows * kVectors, options.dtype(at::kLong));
  // Knuth's multiplicative hash
  const at::Tensor bits = index.mul(2654435761).bitwise_right_shift(7).bitwise_and(0xfff);
  return bits.to(options.dtype()).div(2048).sub(1).view({1, rows, kVectors});
}

}  // namespace

at::Tensor aten_largest_singular_value(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  const at::ScalarType wide = type == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor gram = product(x, x.mT(), wide);
  const at::Tensor size = frobenius(gram);
  gram = gram.div_(size).to(type);
  at::Tensor power = gram;
  for (int i = 0; i < kSquarings; ++i) {
    power = product(power, power, wide);
    power = power.div_(frobenius(power)).to(type);
  }
  at::Tensor v =
      start_vectors(x.size(1), x.options().dtype(wide)).expand({x.size(0), -1, -1});
  for (int i = 0; i < kIterations; ++i) {
    v = product(power, v.to(type), wide);
    v = v / or_one(at::linalg_vector_norm(v, 2, at::IntArrayRef{1}, /*keepdim=*/true));
  }
  const at::Tensor rounded = v.to(type), own = rounded.to(wide);
  const at::Tensor forward = product(gram, rounded, wide);
  const at::Tensor ritz = (forward * own).sum(1) / or_one((own * own).sum(1));
  return (ritz.amax(1).view({-1, 1, 1}) * size).clamp_min(0).sqrt();
}

}  // namespace pion
