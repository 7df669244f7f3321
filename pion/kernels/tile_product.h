// SPDX-License-Identifier: Apache-2.0
// The product of tiles on AVX-512 BF16 or, with PION_AMX, on AMX; and the order in which
// a larger product is made of them. Only for *_kernel.cc files of these two targets.
#pragma once

#include <immintrin.h>

#include "pion/kernels/tile_call.h"

namespace pion::PION_TARGET {

#if defined(PION_AMX)
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
#else
struct TileRegisters {
  ~TileRegisters() {}  // so that a variable of it is not unused
};

// Eight rows of c, `kHalves` vectors of 16 columns wide.
template <int kHalves>
struct EightRows {
  __m512 sum[8][kHalves];

  void start(const float* c, bool accumulate) {
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        sum[r][h] = accumulate ? _mm512_loadu_ps(c + r * kBlockEdge + 16 * h)
                               : _mm512_setzero_ps();
      }
    }
  }

  // Adds the product of rows of one left tile and of right tiles `step` apart.
  void add(const Bf16Bits* left, const Bf16Bits* right, std::size_t step) {
    const auto* pairs = reinterpret_cast<const float*>(left);
#pragma GCC unroll 2
    for (int pair = 0; pair < 16; ++pair) {
      __m512bh b[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        b[h] =
            reinterpret_cast<__m512bh>(_mm512_loadu_si512(right + h * step + pair * 32));
      }
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) {
        const auto a = reinterpret_cast<__m512bh>(_mm512_set1_ps(pairs[r * 16 + pair]));
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h)
          sum[r][h] = _mm512_dpbf16_ps(sum[r][h], a, b[h]);
      }
    }
  }

  void store(float* c) const {
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        _mm512_storeu_ps(c + r * kBlockEdge + 16 * h, sum[r][h]);
      }
    }
  }
};

template <Terms kTerms, int kHalves>
inline void multiply_rows(const TileProduct& p, std::size_t left, std::size_t right,
                          std::size_t k0, std::size_t k1, bool accumulate, float* c) {
  EightRows<kHalves> rows;
  rows.start(c, accumulate);
  for (std::size_t k = k0; k < k1; ++k) {
    const std::size_t l = left + k * kTileSize, r = right + k * kTileSize;
    rows.add(p.left + l, p.right + r, p.right_step);
    if constexpr (kTerms == Terms::kLeftRest || kTerms == Terms::kBothRests) {
      rows.add(p.left_rest + l, p.right + r, p.right_step);
    }
    if constexpr (kTerms == Terms::kRightRest || kTerms == Terms::kBothRests) {
      rows.add(p.left + l, p.right_rest + r, p.right_step);
    }
  }
  rows.store(c);
}

// c (32 x 32) (+)= the terms over k tiles [k0, k1), for block row i and block column j.
template <Terms kTerms, bool kOnDiagonal, class Between>
inline void multiply_terms(const TileProduct& p, std::size_t i, std::size_t j,
                           std::size_t k0, std::size_t k1, bool accumulate, float* c,
                           Between) {
  const std::size_t right = 2 * j * p.right_step;
  for (std::size_t row = 0; row < 32; row += 8) {
    const std::size_t left = (2 * i + row / 16) * p.left_step + row % 16 * 32;
    float* to = c + row * kBlockEdge;
    if (kOnDiagonal && row >= 16) {  // the corner below the diagonal is left out
      multiply_rows<kTerms, 1>(p, left, right + p.right_step, k0, k1, accumulate,
                               to + 16);
    } else {
      multiply_rows<kTerms, 2>(p, left, right, k0, k1, accumulate, to);
    }
  }
}
#endif

template <class Between>
inline void multiply_block(const TileProduct& p, std::size_t i, std::size_t j,
                           std::size_t k0, std::size_t k1, bool accumulate,
                           bool on_diagonal, float* c, Between between) {
  switch (p.terms) {
    case Terms::kOne:
      if (on_diagonal) {
        return multiply_terms<Terms::kOne, true>(p, i, j, k0, k1, accumulate, c, between);
      }
      return multiply_terms<Terms::kOne, false>(p, i, j, k0, k1, accumulate, c, between);
    case Terms::kLeftRest:
      return multiply_terms<Terms::kLeftRest, false>(p, i, j, k0, k1, accumulate, c,
                                                     between);
    case Terms::kRightRest:
      return multiply_terms<Terms::kRightRest, false>(p, i, j, k0, k1, accumulate, c,
                                                      between);
    case Terms::kBothRests:
      if (on_diagonal) {
        return multiply_terms<Terms::kBothRests, true>(p, i, j, k0, k1, accumulate, c,
                                                       between);
      }
      return multiply_terms<Terms::kBothRests, false>(p, i, j, k0, k1, accumulate, c,
                                                      between);
  }
}

inline std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

// Where the results of one thread lie until they are done with.
struct alignas(64) BlockBuffer {
  float blocks[kLargestGroup][kBlockSize];
};

// Computes the blocks of items [first_item, last_item) into `buffer`. Item by item: 32
// left rows pass over a group of right columns. Long sums go by depths whose left strip
// stays in L1.
//
// finish.begin(i, j, item, c) is told of every block that is done, and then
// finish.piece(n) is called for n in [0, Finish::kPieces): between the products of the
// next block, so that vector units and tile unit work at the same time.
template <class Finish>
inline void multiply_items(const TileProduct& p, std::size_t first_item,
                           std::size_t last_item, BlockBuffer& buffer, Finish& finish) {
  int piece = Finish::kPieces;  // the next one of the block before
  const auto next_piece = [&] {
    if (piece < Finish::kPieces) finish.piece(piece++);
  };
  const auto complete = [&] {
    while (piece < Finish::kPieces) finish.piece(piece++);
  };
  const std::size_t depth = p.terms == Terms::kOne ? kDepth : kDepth / 2;
  const bool whole = p.k_tiles <= depth;
  std::size_t item = 0, turn = 0;
  for (std::size_t group = 0; group < p.col_blocks; group += p.group) {
    const std::size_t end = smaller(group + p.group, p.col_blocks);
    const std::size_t rows = p.symmetric ? end : p.row_blocks;
    if (item + rows <= first_item) {
      item += rows;
      continue;
    }
    for (std::size_t i = 0; i < rows; ++i, ++item) {
      if (item < first_item) continue;
      if (item >= last_item) return complete();
      const std::size_t begin = p.symmetric && i > group ? i : group;
      if (!whole) complete();  // all of the buffer is wanted
      for (std::size_t k0 = 0; k0 < p.k_tiles; k0 += depth) {
        const std::size_t k1 = smaller(k0 + depth, p.k_tiles);
        for (std::size_t j = begin; j < end; ++j) {
          float* c = buffer.blocks[whole ? turn++ % 2 : j - group];
          multiply_block(p, i, j, k0, k1, k0 > 0, p.symmetric && i == j, c, next_piece);
          if (k1 < p.k_tiles) continue;
          complete();
          finish.begin(i, j, item, c);
          piece = 0;
        }
      }
    }
  }
  complete();
}

}  // namespace pion::PION_TARGET
