// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace pion {

// round_stochastically by ATen operations, with the same random bits: the bf16 result is
// the one of the CPU for equal input and seed. `from` is f32 of any shape.
at::Tensor aten_round_stochastically(const at::Tensor& from, std::uint64_t seed);

}  // namespace pion
