// SPDX-License-Identifier: Apache-2.0
// What block_load.cc passes to the kernel of a target. Plain data and declarations only:
// this header is read by sources built for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pion {

// X = scale D of a block of a weight, where
//   M <- mu M + share G, if update_momentum
//   D = nesterov ? mu M + share G : M, or G if there is no M
struct BlockLoad {
  const float* gradient;                 // (rows x cols), or null and
  const std::uint16_t* narrow_gradient;  // bits of bfloat16
  std::size_t gradient_stride;           // elements, as all strides
  float* momentum;                       // null: D = G
  std::size_t momentum_stride;
  bool update_momentum;
  float mu, share;
  bool nesterov;
  float scale;
  std::size_t rows, cols;
  float* x;  // gets X
  std::size_t x_stride;
  float* transposed;  // null, or gets X^T
  std::size_t transposed_stride;
};

// Returns the bits of the largest |D|: their order is that of the values, NaN on top.
#define PION_BLOCK_LOAD(target)                    \
  namespace target {                               \
  std::uint32_t load_block(const BlockLoad& call); \
  }
PION_BLOCK_LOAD(portable)
PION_BLOCK_LOAD(avx2)
PION_BLOCK_LOAD(avx512)
#undef PION_BLOCK_LOAD

}  // namespace pion
