// SPDX-License-Identifier: Apache-2.0
// What the tests of tiles load. Included by test sources only.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pion/bfloat16.h"
#include "pion/kernels/tested_tiles_test.h"
#include "tests/random_matrix.h"

namespace pion {

using Matrix = RandomMatrix<float>;

inline std::size_t padded(std::int64_t n) {
  return (static_cast<std::size_t>(n) + 31) / 32;
}

inline float rounded(float x) { return bfloat16(x); }
inline float wide(Bf16Bits bits) {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

// The tiles and blocks of a matrix in both layouts.
struct Loaded {
  std::size_t rows, cols;  // in blocks
  std::vector<Bf16Bits> left, right;
  std::vector<float> blocks;
  std::uint32_t largest = 0;

  // Entry (i, j) as each layout has it.
  float in_left(std::size_t i, std::size_t j) const {
    return wide(left[(i / 16 * cols + j / 32) * kTileSize + i % 16 * 32 + j % 32]);
  }
  float in_right(std::size_t i, std::size_t j) const {
    return wide(right[(j / 16 * rows + i / 32) * kTileSize + i % 32 / 2 * 32 +
                      j % 16 * 2 + i % 2]);
  }
  float in_blocks(std::size_t i, std::size_t j) const {
    return blocks[(i / 32 * cols + j / 32) * kBlockSize + i % 32 * 32 + j % 32];
  }
};

inline Loaded load(const TileKernels& kernels, const Matrix& x) {
  Loaded to{padded(x.rows), padded(x.cols), {}, {}, {}};
  to.left.assign(2 * to.rows * to.cols * kTileSize, 0xffff);  // NaN where nothing comes
  to.right = to.left;
  to.blocks.assign(to.rows * to.cols * kBlockSize, NAN);
  to.largest = kernels.load({.gradient = x.data.data(),
                             .gradient_stride = static_cast<std::size_t>(x.cols),
                             .scale = 1,
                             .rows = static_cast<std::size_t>(x.rows),
                             .cols = static_cast<std::size_t>(x.cols),
                             .left = to.left.data(),
                             .left_step = to.cols * kTileSize,
                             .right = to.right.data(),
                             .right_step = to.rows * kTileSize,
                             .blocks = to.blocks.data(),
                             .blocks_step = to.cols * kBlockSize});
  return to;
}

inline TileProduct product_of(const Loaded& a, const Loaded& b, bool symmetric) {
  return {.left = a.left.data(),
          .left_step = a.cols * kTileSize,
          .right = b.right.data(),
          .right_step = b.rows * kTileSize,
          .k_tiles = a.cols,
          .row_blocks = a.rows,
          .col_blocks = b.cols,
          .symmetric = symmetric};
}

}  // namespace pion
