// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace pion {

// round_stochastically of every row of `from` by ATen operations, with the same random
// bits: the result is the one of the CPU for equal input and seed. Nothing waits for the
// device.
//
//   from   (rows, entries), f32, read
//   to     (rows, entries), bf16, written; must not overlap `from`
//   seeds  one a row
//   first  the index of every row's first entry in its parameter
void aten_round_stochastically(const at::Tensor& from, const at::Tensor& to,
                               std::span<const std::uint64_t> seeds,
                               std::int64_t first = 0);

}  // namespace pion
