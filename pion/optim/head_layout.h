// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace pion {

// How a weight is cut into blocks; every block has its own norm, map and scale. The
// default is one block. axis 0 cuts output rows (Q, K, V), axis 1 input columns (the
// output projection). Fused QKV: sizes {H d, K d, K d}, heads {H, K, K}. A convolution is
// folded to (out, rest) and a stack of E matrices to (E out, in) with heads {E} before it
// comes here.
struct HeadLayout {
  int axis = 0;
  std::vector<std::int64_t>
      sizes;  // rows (or columns) of each part; empty: one part, all
  std::vector<std::int64_t> heads = {1};  // heads of each part; each must divide its size
  // stored (in, out), as GPT-2's Conv1D does: columns are outputs, and the scale takes
  // rows for columns. axis stays that of the storage.
  bool transposed = false;

  friend bool operator==(const HeadLayout&, const HeadLayout&) = default;
};

struct Block {
  std::int64_t row, col, rows, cols;
};

// The blocks of a (rows x cols) matrix in order. Throws std::invalid_argument, naming the
// counts, if sizes do not sum up or a head count does not divide.
std::vector<Block> head_blocks(const HeadLayout& layout, std::int64_t rows,
                               std::int64_t cols);

// The same check alone.
void check_head_layout(const HeadLayout& layout, std::int64_t rows, std::int64_t cols);

// The same into `blocks`, whose memory is reused.
void fill_head_blocks(const HeadLayout& layout, std::int64_t rows, std::int64_t cols,
                      std::vector<Block>& blocks);

}  // namespace pion
