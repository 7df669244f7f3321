// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "pion/kernels/cpu_target.h"
#include "pion/kernels/tile_call.h"

namespace pion {

// The bf16 kernels of one target: products of bf16 tiles with f32 sums, for matrices in
// the layouts of tile_call.h. The caller owns all memory, checks shapes and pads.
struct TileKernels {
  // Fills the tiles of one block of a weight; returns the bits of the largest |D|, not
  // scaled: that of infinity or more if an entry is not finite.
  std::uint32_t (*load)(const TileLoad& call);
  // Left tiles of X become the right tiles of X^T, and the other way round.
  void (*transpose)(const Bf16Bits* from, std::size_t tiles, Bf16Bits* to);
  // Items [first, last) of a product; every item writes its own part of the result.
  void (*gram)(const TileGram& call, std::size_t first, std::size_t last);
  void (*symmetric)(const TileSymmetric& call, std::size_t first, std::size_t last);
  // beta c in place of a product, for rows of blocks [first, last) of a Gram matrix,
  // whose diagonal blocks lack a corner.
  void (*round_gram)(const TileSymmetric& call, std::size_t first, std::size_t last);
  void (*update)(const TileUpdate& call, std::size_t first, std::size_t last);
  void (*advance)(const TileAdvance& call, std::size_t first, std::size_t last);
  // Multiplies 32 x 256 x 32 of ones within L1 and returns the flops: what a machine can
  // reach. `last` becomes an entry of the sum, 256 repetitions.
  double (*multiply_peak)(std::size_t repetitions, float* last);
};

// Throws std::invalid_argument unless has_bf16(target).
const TileKernels& tile_kernels(CpuTarget target);

// The number of items of a product.
std::size_t item_count(const TileProduct& product);

}  // namespace pion
