// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_rounding.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "pion/optim/rounding.h"

namespace pion {
namespace {

// Entries that are rounded at a time: their counters, i64, are 4 MiB.
constexpr std::int64_t kRounded = 1 << 19;

constexpr std::uint64_t kStride = 0x9e3779b97f4a7c15u;

std::int64_t bits(std::uint64_t value) { return static_cast<std::int64_t>(value); }

// i64 tensors wrap as u64 do; only the shift to the right needs its sign bits removed.
at::Tensor shifted(const at::Tensor& z, int by) {
  return z.bitwise_right_shift(by).bitwise_and(bits(~std::uint64_t{0} >> by));
}

// The finalizer of splitmix64, as in pion/optim/rounding.cc.
at::Tensor mix(const at::Tensor& z) {
  z.bitwise_xor_(shifted(z, 30)).mul_(bits(0xbf58476d1ce4e5b9u));
  z.bitwise_xor_(shifted(z, 27)).mul_(bits(0x94d049bb133111ebu));
  return z.bitwise_xor_(shifted(z, 31));
}

// Where the counters of every row begin, (rows, 1). From pinned memory a device copies
// them when it comes to it.
at::Tensor starts(std::span<const std::uint64_t> seeds, const at::Device& device) {
  at::Tensor own = at::empty(
      {static_cast<std::int64_t>(seeds.size()), 1},
      at::TensorOptions(at::kLong).pinned_memory(device.is_cuda() || device.is_xpu()));
  for (std::size_t i = 0; i < seeds.size(); ++i)
    own.mutable_data_ptr<std::int64_t>()[i] = bits(rounding_start(seeds[i]));
  return own.to(device, /*non_blocking=*/true);
}

}  // namespace

void aten_round_stochastically(const at::Tensor& from, const at::Tensor& to,
                               std::span<const std::uint64_t> seeds, std::int64_t first) {
  const at::Tensor start = starts(seeds, from.device());
  const std::int64_t rows = from.size(0), cols = from.size(1);
  const std::int64_t most = std::max<std::int64_t>(1, kRounded / rows);
  for (std::int64_t done = 0; done < cols; done += most) {
    const std::int64_t count = std::min(most, cols - done);
    const at::Tensor value = from.narrow(1, done, count);
    at::Tensor word = at::arange(first + done, first + done + count, start.options());
    word = mix(word.mul_(bits(kStride)).add(start));
    const at::Tensor random = shifted(word, 48).to(at::kInt);
    // 0xffff0000
    const at::Tensor rounded = random.add_(value.view(at::kInt)).bitwise_and_(-65536);
    to.narrow(1, done, count)
        .copy_(at::where(at::isfinite(value), rounded.view(at::kFloat), value));
  }
}

}  // namespace pion
