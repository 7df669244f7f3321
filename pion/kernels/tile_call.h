// SPDX-License-Identifier: Apache-2.0
// What tiles.cc passes to the bf16 kernels. Plain data and declarations only: this header
// is read by sources built for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pion {

using Bf16Bits = std::uint16_t;

// The layouts, pictured in docs/kernels.md:
//   left tile    16 rows x 32 columns, row-major: the left operand of a product
//   right tile   32 rows x 16 columns, rows 2p and 2p + 1 interleaved: the right operand
//   block        32 x 32 floats, row-major
// Matrices are padded with zeros to multiples of 32. Tiles that follow each other along
// the summed dimension are contiguous; blocks of a matrix lie row by row.
inline constexpr std::size_t kTileSize = 512;    // bf16 in a tile, 1 KiB
inline constexpr std::size_t kBlockEdge = 32;    // rows and columns of a block
inline constexpr std::size_t kBlockSize = 1024;  // floats in a block, 4 KiB
inline constexpr std::size_t kLargestGroup = 16;
inline constexpr std::size_t kDepth = 8;  // tiles along the sum: 16 KiB of a left strip

// X = scale D of one block of a weight, in both layouts.
struct TileLoad {
  const void* gradient;  // (rows x cols), f32 or bf16
  bool gradient_is_bf16;
  std::size_t gradient_stride;
  float* momentum;  // null: D = G
  std::size_t momentum_stride;
  bool update_momentum;  // M <- mu M + share G first
  float mu, share;
  bool nesterov;  // D = mu M + share G in place of M
  float scale;
  std::size_t rows, cols;
  Bf16Bits* left;         // null, or tile (i, k) at left + i left_step + k kTileSize
  std::size_t left_step;  // elements
  Bf16Bits* right;        // null, or tile (k, j) at right + j right_step + k kTileSize
  std::size_t right_step;
  float* blocks;  // null, or block (i, j) at blocks + i blocks_step + j kBlockSize
  std::size_t blocks_step;
};

// Which of the products L R, L' R and L R' are summed, for what rounding left over of the
// operands, L' and R'.
enum class Terms {
  kOne,        // L R
  kLeftRest,   // L R + L' R
  kRightRest,  // L R + L R'
  kBothRests,  // L R + L' R + L R'
};

// A product, cut into items: 32 rows times `group` blocks of columns. Every item is
// computed in the same way whoever computes it.
struct TileProduct {
  Terms terms = Terms::kOne;
  const Bf16Bits* left;  // tile (i, k) at left + i left_step + k kTileSize
  const Bf16Bits* left_rest;
  std::size_t left_step;  // elements
  const Bf16Bits* right;  // tile (k, j) at right + j right_step + k kTileSize
  const Bf16Bits* right_rest;
  std::size_t right_step;
  std::size_t k_tiles;                 // 32-deep tiles along the summed dimension; > 0
  std::size_t row_blocks, col_blocks;  // of the result
  bool symmetric;                      // blocks below the diagonal are left out
  std::size_t group = 8;  // blocks of columns that are gone through row by row and so
                          // stay in L2; kLargestGroup at most
};

// blocks (+)= product; symmetric.
struct TileGram {
  TileProduct product;
  float* blocks;
  bool accumulate;
};

// v = alpha product + beta c; the upper blocks are computed, tiles are mirrored.
struct TileSymmetric {
  TileProduct product;
  float alpha, beta, diagonal;
  const float* c;            // blocks; not read if beta is 0
  float* out;                // null, or blocks of v + diagonal I; may be c
  bool out_rounded = false;  // `out` gets bf16(v): what the tiles hold
  Bf16Bits* left;            // null, or left tiles of v
  Bf16Bits* left_rest;       // null, or left tiles of v - bf16(v)
  bool diagonal_in_left;     // of v + diagonal I instead
  Bf16Bits* right;           // null, or right tiles of v + diagonal I
  Bf16Bits* right_rest;
};

// W <- decay W + alpha O, or W <- alpha O if decay is 0. O = product + beta x.
struct TileUpdate {
  TileProduct product;
  float beta = 0;
  const float* x = nullptr;  // null, or blocks (row_blocks x col_blocks)
  float decay, alpha;
  float* weight;
  std::size_t weight_stride, rows, cols;
  double* squares;               // one per item: the sum of the squares of O
  const float* other = nullptr;  // null, or blocks as x
  double* inner = nullptr;       // one per item: <other, O>
};

// x <- alpha product + beta x, and x in both layouts.
struct TileAdvance {
  TileProduct product;
  float alpha, beta;
  float* x;                // blocks; or null, with beta = 0
  bool x_rounded = false;  // x gets its rounded values: what the tiles hold
  Bf16Bits* left;          // left tiles
  std::size_t left_step;
  Bf16Bits* right;  // right tiles
  std::size_t right_step;
};

#define PION_TILE_KERNELS                                                               \
  std::uint32_t load_tiles(const TileLoad& call);                                       \
  void transpose_tiles(const Bf16Bits* from, std::size_t tiles, Bf16Bits* to);          \
  void gram(const TileGram& call, std::size_t first_item, std::size_t last_item);       \
  void symmetric(const TileSymmetric& call, std::size_t first, std::size_t last);       \
  void round_gram(const TileSymmetric& call, std::size_t first, std::size_t last);      \
  void update(const TileUpdate& call, std::size_t first_item, std::size_t last_item);   \
  void advance(const TileAdvance& call, std::size_t first_item, std::size_t last_item); \
  double multiply_peak(std::size_t repetitions, float* last);
namespace avx512_bf16 {
PION_TILE_KERNELS
}
namespace amx_bf16 {
PION_TILE_KERNELS
}
namespace emulated_bf16 {  // in tests only, see tests/emulated
PION_TILE_KERNELS
}
#undef PION_TILE_KERNELS

}  // namespace pion
