// SPDX-License-Identifier: Apache-2.0
// The product of bf16 tiles on AMX. Only for *_kernel.cc files of this target.
#pragma once

#include <immintrin.h>

#include "pion/kernels/tile_call.h"

namespace pion::PION_TARGET {

// Tile registers 0 to 3 hold the result, 4 and 5 left tiles, 6 and 7 right ones: all
// eight, 16 rows of 64 bytes each.
struct alignas(64) TileConfiguration {
  unsigned char palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// In memory from the start: g++ 12 tells the compiler of the first 8 bytes only.
static constexpr TileConfiguration kTileConfiguration;

// Loaded by every kernel call, since a thread that holds tiles costs the operating system
// 8 KiB at every switch.
class TileRegisters {
 public:
  TileRegisters() { _tile_loadconfig(&kTileConfiguration); }
  ~TileRegisters() { _tile_release(); }
};

// Four products of the tiles in registers 4 to 7; on the diagonal, the 16 x 16 corner
// below it is left out.
template <bool kOnDiagonal>
inline void multiply_registers() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (!kOnDiagonal) _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

inline void load_left(const Bf16Bits* tile, std::size_t step) {
  _tile_loadd(4, tile, 64);
  _tile_loadd(5, tile + step, 64);
}
inline void load_right(const Bf16Bits* tile, std::size_t step) {
  _tile_loadd(6, tile, 64);
  _tile_loadd(7, tile + step, 64);
}

// c (32 x 32) (+)= the terms over k tiles [k0, k1), for block row i and block column j.
// Calls between() after every four products: the tile unit is busy with them for 64
// cycles, which vector units can use.
template <Terms kTerms, bool kOnDiagonal, class Between>
inline void multiply_terms(const TileProduct& p, std::size_t i, std::size_t j,
                           std::size_t k0, std::size_t k1, bool accumulate, float* c,
                           Between between) {
  constexpr int kStride = 4 * kBlockEdge;  // bytes
  // g++ 12 does not know that _tile_loadd reads memory: everything must be written by now
  asm volatile("" ::: "memory");
  if (accumulate) {
    _tile_loadd(0, c, kStride);
    _tile_loadd(1, c + 16, kStride);
    if constexpr (!kOnDiagonal) _tile_loadd(2, c + 512, kStride);
    _tile_loadd(3, c + 528, kStride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::size_t left_step = p.left_step, right_step = p.right_step;
  const std::size_t left = 2 * i * left_step, right = 2 * j * right_step;
  for (std::size_t k = k0; k < k1; ++k) {
    const std::size_t l = left + k * kTileSize, r = right + k * kTileSize;
    load_left(p.left + l, left_step);
    load_right(p.right + r, right_step);
    multiply_registers<kOnDiagonal>();
    between();
    if constexpr (kTerms == Terms::kLeftRest || kTerms == Terms::kBothRests) {
      load_left(p.left_rest + l, left_step);
      multiply_registers<kOnDiagonal>();
      between();
    }
    if constexpr (kTerms == Terms::kBothRests) load_left(p.left + l, left_step);
    if constexpr (kTerms == Terms::kRightRest || kTerms == Terms::kBothRests) {
      load_right(p.right_rest + r, right_step);
      multiply_registers<kOnDiagonal>();
      between();
    }
  }
  _tile_stored(0, c, kStride);
  _tile_stored(1, c + 16, kStride);
  if constexpr (!kOnDiagonal) _tile_stored(2, c + 512, kStride);
  _tile_stored(3, c + 528, kStride);
}

}  // namespace pion::PION_TARGET
