// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_rounding.h"

#include <ATen/ATen.h>

namespace pion {
namespace {

constexpr std::uint64_t kStride = 0x9e3779b97f4a7c15u;

std::int64_t bits(std::uint64_t value) { return static_cast<std::int64_t>(value); }

// i64 tensors wrap as u64 do; only the shift to the right needs its sign bits removed.
at::Tensor shifted(const at::Tensor& z, int by) {
  return z.bitwise_right_shift(by).bitwise_and(bits(~std::uint64_t{0} >> by));
}

// The finalizer of splitmix64, as in pion/optim/rounding.cc.
at::Tensor mix(at::Tensor z) {
  z = z.bitwise_xor(shifted(z, 30)) * bits(0xbf58476d1ce4e5b9u);
  z = z.bitwise_xor(shifted(z, 27)) * bits(0x94d049bb133111ebu);
  return z.bitwise_xor(shifted(z, 31));
}

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

at::Tensor aten_round_stochastically(const at::Tensor& from, std::uint64_t seed) {
  const at::Tensor value = from.contiguous();
  const at::Tensor index = at::arange(value.numel(), value.options().dtype(at::kLong));
  const at::Tensor word = mix(index * bits(kStride) + bits(mix(seed + kStride)));
  const at::Tensor random = shifted(word, 48).to(at::kInt).view(value.sizes());
  const at::Tensor rounded =
      (value.view(at::kInt) + random).bitwise_and(-65536);  // 0xffff0000
  return at::where(at::isfinite(value), rounded.view(at::kFloat), value)
      .to(at::kBFloat16);
}

}  // namespace pion
