// SPDX-License-Identifier: Apache-2.0
// The order in which a larger product is made of blocks. Only for *_kernel.cc files of
// the targets with bf16. An instruction set brings
//
//   TileRegisters   what a kernel call must set up and give back
//   multiply_terms  one block of a product, see tile_multiply_amx.h
#pragma once

#include "pion/kernels/tile_call.h"
#if defined(PION_AMX)
#include "pion/kernels/tile_multiply_amx.h"
#else
#include "pion/kernels/tile_multiply_avx512.h"
#endif

namespace pion::PION_TARGET {

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

// Products of a pair of tiles that the terms are.
inline std::size_t products_of(Terms terms) {
  return terms == Terms::kOne ? 1 : terms == Terms::kBothRests ? 3 : 2;
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
  const auto products = static_cast<int>(p.k_tiles * products_of(p.terms));
  const int at_once = 1 + (Finish::kPieces - 1) / products;
  const auto next_piece = [&] {
    for (int n = 0; n < at_once && piece < Finish::kPieces; ++n) finish.piece(piece++);
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
