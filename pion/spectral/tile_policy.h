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
  // direct: X is kept in bf16 from this step on, not in f32
  std::size_t round_x_from = 0;

  TilePolicy() = default;
  TilePolicy(const SpectralMap& map, std::int64_t rows, std::int64_t cols);

  bool single(std::size_t step) const { return step < split_from; }
};

// The same for f32 products, which are never split or rounded: direct, or in Gram space,
// from where the aspect is 1.5.
//
// Under Precision::kF32 a map that magnifies weak directions no more than 13 times
// (Pion's with up to four promotions) stays within 2e-6 of the definition in Gram space,
// where the direct iteration is at 5e-7. One that does so no more than 42 times before
// its last two steps (Muon's classic sequence of five) forms X anew before them, and is
// then within 2.5 times the error of the direct iteration or 1e-5. Others iterate
// directly. Under kFast and kAccurate all maps run in Gram space without a restart: at
// 1e-4 they are far below the bf16 products that these stand for.
TilePolicy f32_policy(const SpectralMap& map, std::int64_t rows, std::int64_t cols);

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
