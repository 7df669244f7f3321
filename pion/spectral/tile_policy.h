// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "pion/spectral/spectral_map.h"

namespace pion {

// Which products of bf16 tiles a map takes on blocks of one shape, by the error tables in
// docs/kernels.md. Single products round both operands; split ones keep what rounding
// left over and multiply three times; the rest of Q alone doubles Q X.
struct TilePolicy {
  bool direct = false;         // nearly square: X <- a X + P X
  std::size_t steps = 0;       // of the sequence
  std::size_t restart = 0;     // X <- Q X before this step, and Q = I; steps: never
  std::size_t split_from = 0;  // m x m products are split in this step and later ones
  bool rest_of_last = false;   // of Q in Q X, or of P in P X
  std::size_t round_x_from = 0;  // direct: X is kept in bf16 from this step on, not in f32

  TilePolicy() = default;
  TilePolicy(const SpectralMap& map, std::int64_t rows, std::int64_t cols);

  bool single(std::size_t step) const { return step < split_from; }
};

// Whether the error of bf16 tiles stays small under that sequence; else products are f32.
bool fits_tiles(const QuinticSequence& sequence);

// Whether a block of that shape is nearly square.
bool iterates_directly(std::int64_t rows, std::int64_t cols);

// Floating-point operations of the products of one map, by halves where they are
// symmetric, as often as they are multiplied.
struct TileWork {
  double load = 0, apply = 0, update = 0;
  double all() const { return load + apply + update; }
};
TileWork tile_work(const TilePolicy& policy, std::int64_t rows, std::int64_t cols);

}  // namespace pion
