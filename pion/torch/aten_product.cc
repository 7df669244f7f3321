// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_product.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/record_function.h>

#include <algorithm>

namespace pion {
namespace {

// Entries of f32 that a widened product holds at a time: 2 MiB.
constexpr std::int64_t kWidened = 1 << 19;

bool is_narrow(const at::Tensor& a) {
  return a.scalar_type() == at::kHalf || a.scalar_type() == at::kBFloat16;
}

// to <- beta to + alpha a b for a part of a batch, in f32; beta 0: `to` is not read.
void widened_part(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b,
                  double beta, double alpha) {
  const at::Tensor sum = a.to(at::kFloat).bmm(b.to(at::kFloat));
  if (alpha != 1) sum.mul_(alpha);
  if (beta != 0) sum.add_(to, beta);
  to.copy_(sum);
}

// The same for all of it, a few matrices, or tiles of one, at a time.
void widened_product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b,
                     double beta, double alpha) {
  RECORD_FUNCTION("pion::product", c10::ArrayRef<const c10::IValue>());
  const std::int64_t batch = a.size(0), rows = a.size(1), inner = a.size(2),
                     cols = b.size(2);
  const std::int64_t each = rows * inner + inner * cols + rows * cols;
  if (each <= kWidened) {
    const std::int64_t most = std::max<std::int64_t>(1, kWidened / each);
    for (std::int64_t i = 0; i < batch; i += most) {
      const std::int64_t n = std::min(most, batch - i);
      widened_part(to.narrow(0, i, n), a.narrow(0, i, n), b.narrow(0, i, n), beta, alpha);
    }
    return;
  }
  const std::int64_t side =
      std::clamp<std::int64_t>(kWidened / (2 * inner), 64, std::max(rows, cols));
  for (std::int64_t i = 0; i < rows; i += side) {
    const std::int64_t height = std::min(side, rows - i);
    for (std::int64_t j = 0; j < cols; j += side) {
      const std::int64_t width = std::min(side, cols - j);
      for (std::int64_t k = 0; k < batch; ++k) {
        widened_part(to.narrow(0, k, 1).narrow(1, i, height).narrow(2, j, width),
                     a.narrow(0, k, 1).narrow(1, i, height),
                     b.narrow(0, k, 1).narrow(2, j, width), beta, alpha);
      }
    }
  }
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType type,
                   double alpha) {
  const at::NoTF32Guard true_f32;
  if (is_narrow(a) && !a.is_cuda()) {
    const at::Tensor result =
        at::empty({a.size(0), a.size(1), b.size(2)}, a.options().dtype(type));
    widened_product(result, a, b, 0, alpha);
    return result;
  }
  if (is_narrow(a) && type != a.scalar_type()) {
    const at::Tensor result = at::bmm(a, b, type);
    return alpha == 1 ? result : result.mul_(alpha);
  }
  if (alpha == 1) return a.bmm(b);
  return at::baddbmm(at::empty({1, 1, 1}, a.options()), a, b, 0, alpha);
}

at::Tensor sum_product(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                       double beta, double alpha) {
  const at::NoTF32Guard true_f32;
  if (!is_narrow(a) || (a.is_cuda() && c.scalar_type() == a.scalar_type()))
    return at::baddbmm(c, a, b, beta, alpha);
  if (a.is_cuda()) return at::baddbmm(c, a, b, c.scalar_type(), beta, alpha);
  RECORD_FUNCTION("pion::product", c10::ArrayRef<const c10::IValue>());
  const at::Tensor result = c.clone(at::MemoryFormat::Contiguous);
  widened_product(result, a, b, beta, alpha);
  return result;
}

void add_product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b,
                 double beta, double alpha) {
  const at::NoTF32Guard true_f32;
  at::Tensor target = to;
  if (!is_narrow(a) || (a.is_cuda() && to.scalar_type() == a.scalar_type())) {
    target.baddbmm_(a, b, beta, alpha);
  } else if (a.is_cuda()) {
    at::baddbmm_out(target, target, a, b, target.scalar_type(), beta, alpha);
  } else {
    widened_product(target, a, b, beta, alpha);
  }
}

at::ScalarType product_type(const at::Device& device) {
  const bool bf16_units = device.type() == at::kXLA || device.type() == at::kHPU;
  return bf16_units ? at::kBFloat16 : at::kHalf;
}

}  // namespace pion
