// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/tile_map.h"

#include <algorithm>

namespace pion {

namespace {

// Tiles of a chunk along n: 128 KiB a layout where m allows, so that a chunk stays in L2
// from its load to its product; at least the depth of one pass of the product, 16.
constexpr std::size_t kChunkTiles = 16, kChunkRows = 2048;

// Strips of right tiles lie this much further apart than they are long: those of 128 rows
// would all begin in one set of L1, and a load writes one line of each.
constexpr std::size_t kStripPadding = 32;

std::size_t blocks_of(std::int64_t n) {
  return (static_cast<std::size_t>(n) + kBlockEdge - 1) / kBlockEdge;
}

}  // namespace

TileMap::TileMap(CpuTarget target) : kernels_(tile_kernels(target)) {}

void TileMap::allocate(const SpectralMap& map) {
  policy_ = TilePolicy(map, rows_, cols_);
  row_blocks_ = blocks_of(rows_);
  col_blocks_ = blocks_of(cols_);
  m_blocks_ = wide_ ? row_blocks_ : col_blocks_;
  n_blocks_ = wide_ ? col_blocks_ : row_blocks_;
  left_step_ = col_blocks_ * kTileSize;
  right_step_ = row_blocks_ * kTileSize + kStripPadding;
  chunk_tiles_ =
      std::min(n_blocks_, std::max(kChunkTiles, kChunkRows / (m_blocks_ * kBlockEdge)));
  whole_ = policy_.direct;
  const std::size_t left_side = 2 * row_blocks_ * left_step_,
                    right_side = 2 * col_blocks_ * right_step_;
  const std::size_t short_side = kTileSize * 2 * m_blocks_ * m_blocks_;
  const std::size_t piece = kTileSize * 2 * m_blocks_ * chunk_tiles_;
  if (policy_.direct || !wide_) kept_left_.at_least(left_side);
  if (policy_.direct || wide_) kept_right_.at_least(right_side);
  if (policy_.direct) {
    other_left_.at_least(left_side);
    other_right_.at_least(right_side);
    const std::size_t entries = row_blocks_ * col_blocks_ * kBlockSize;
    x_.at_least(entries);
    if (collect_) first_x_.at_least(entries);
  } else {
    chunk_.at_least(piece);
  }
  transposed_.at_least(piece);
  // 512 bf16 a tile and two tiles a block: as many elements as floats in the blocks
  for (Scratch<Bf16Bits>* tiles :
       {&a_left_, &a_right_, &p_tiles_, &t_right_, &q_tiles_, &q_other_}) {
    tiles->at_least(2 * short_side);
  }
  for (Scratch<float>* blocks : {&a_, &t_, &q_}) blocks->at_least(short_side);
  if (collect_) first_a_.at_least(short_side);
  largest_.resize(std::max(row_blocks_, largest_.size()));
}

void TileMap::load_rows(const BlockSource& source, float scale, bool update_momentum,
                        std::size_t chunk, std::size_t task, std::uint32_t& largest) {
  const std::size_t k0 = chunk * chunk_tiles_;
  const std::size_t tiles = std::min(chunk_tiles_, n_blocks_ - k0);
  const std::size_t row_block = wide_ ? task : k0 + task, col_block = wide_ ? k0 : 0;
  const auto row = static_cast<std::int64_t>(row_block * kBlockEdge),
             col = static_cast<std::int64_t>(col_block * kBlockEdge);
  const std::int64_t rows = std::min<std::int64_t>(kBlockEdge, rows_ - row);
  const std::int64_t cols =
      wide_ ? std::min<std::int64_t>(tiles * kBlockEdge, cols_ - col) : cols_;
  const bool narrow = source.gradient.data == nullptr;
  const std::size_t piece = chunk_tiles_ * kTileSize;
  TileLoad call{
      .gradient = narrow ? static_cast<const void*>(&source.narrow_gradient(row, col))
                         : &source.gradient(row, col),
      .gradient_is_bf16 = narrow,
      .gradient_stride = static_cast<std::size_t>(narrow ? source.narrow_gradient.stride
                                                         : source.gradient.stride),
      .momentum = source.momentum.data ? &source.momentum(row, col) : nullptr,
      .momentum_stride = static_cast<std::size_t>(source.momentum.stride),
      .update_momentum = update_momentum,
      .mu = source.mu,
      .share = source.share,
      .nesterov = source.nesterov,
      .scale = scale,
      .rows = static_cast<std::size_t>(rows),
      .cols = static_cast<std::size_t>(cols)};
  if (policy_.direct || !wide_) {
    call.left = kept_left_.data() + 2 * row_block * left_step_ + col_block * kTileSize;
    call.left_step = left_step_;
  } else {
    call.left = chunk_.data() + 2 * row_block * piece;
    call.left_step = piece;
  }
  if (policy_.direct || wide_) {
    call.right = kept_right_.data() + 2 * col_block * right_step_ + row_block * kTileSize;
    call.right_step = right_step_;
  } else {
    call.right = chunk_.data() + task * kTileSize;
    call.right_step = piece;
  }
  if (policy_.direct) {
    call.blocks = x_.data() + (row_block * col_blocks_ + col_block) * kBlockSize;
    call.blocks_step = col_blocks_ * kBlockSize;
  }
  largest = std::max(largest, kernels_.load(call));
  transpose_piece(call.left, call.left_step, call.right, call.right_step, tiles, task);
}

// The tiles of X^T from those of one row of blocks of a chunk.
void TileMap::transpose_piece(const Bf16Bits* left, std::size_t left_step,
                              const Bf16Bits* right, std::size_t right_step,
                              std::size_t tiles, std::size_t task) {
  const std::size_t piece = chunk_tiles_ * kTileSize;
  if (wide_) {
    for (std::size_t i = 0; i < 2; ++i) {
      kernels_.transpose(left + i * left_step, tiles,
                         transposed_.data() + (2 * task + i) * piece);
    }
  } else {
    for (std::size_t j = 0; j < 2 * col_blocks_; ++j) {
      kernels_.transpose(right + j * right_step, 1,
                         transposed_.data() + j * piece + task * kTileSize);
    }
  }
}

void TileMap::add_gram(std::size_t chunk, Executor& executor) {
  const std::size_t k0 = chunk * chunk_tiles_, piece = chunk_tiles_ * kTileSize;
  const std::size_t tiles = std::min(chunk_tiles_, n_blocks_ - k0);
  const Bf16Bits* own = chunk_.data();
  if (whole_) own = (wide_ ? kept_left_ : kept_right_).data() + k0 * kTileSize;
  const std::size_t own_step = !whole_ ? piece : wide_ ? left_step_ : right_step_;
  const TileGram call{.product = {.left = wide_ ? own : transposed_.data(),
                                  .left_step = wide_ ? own_step : piece,
                                  .right = wide_ ? transposed_.data() : own,
                                  .right_step = wide_ ? piece : own_step,
                                  .k_tiles = tiles,
                                  .row_blocks = m_blocks_,
                                  .col_blocks = m_blocks_,
                                  .symmetric = true},
                      .blocks = a_.data(),
                      .accumulate = chunk > 0};
  run_items(item_count(call.product), executor, [&](std::size_t first, std::size_t last) {
    kernels_.gram(call, first, last);
  });
}

std::uint32_t TileMap::load_all(const BlockSource& source, float scale,
                                bool update_momentum, Executor& executor) {
  std::fill(largest_.begin(), largest_.begin() + static_cast<std::ptrdiff_t>(row_blocks_),
            0u);
  for (std::size_t chunk = 0; chunk * chunk_tiles_ < n_blocks_; ++chunk) {
    const std::size_t k0 = chunk * chunk_tiles_;
    const std::size_t tasks =
        wide_ ? row_blocks_ : std::min(chunk_tiles_, row_blocks_ - k0);
    executor.run(static_cast<int>(tasks), [&](int task, int) {
      // a momentum that decays to nothing must not stay denormal, but a denormal D counts
      const FlushDenormals flush(Denormals::kZeroResults);
      const auto t = static_cast<std::size_t>(task);
      load_rows(source, scale, update_momentum, chunk, t, largest_[wide_ ? t : k0 + t]);
    });
    add_gram(chunk, executor);
  }
  return *std::max_element(largest_.begin(),
                           largest_.begin() + static_cast<std::ptrdiff_t>(row_blocks_));
}

double TileMap::gram_trace() const {
  double sum = 0;
  for (std::size_t i = 0; i < m_blocks_; ++i) {
    const float* block = a_.data() + i * (m_blocks_ + 1) * kBlockSize;
    for (std::size_t r = 0; r < kBlockEdge; ++r) {
      sum += static_cast<double>(block[r * (kBlockEdge + 1)]);
    }
  }
  return sum;
}

double TileMap::largest_eigenvalue_of_gram(int steps) {
  // the Gram matrix over ||X||^2, row-major and without its padding
  const std::int64_t m = std::min(rows_, cols_);
  const std::span<float> rows = gram_rows_.at_least(static_cast<std::size_t>(m * m));
  const auto unit = static_cast<float>(1.0 / (norm_ * norm_));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = i; j < m; ++j) {
      const auto bi = static_cast<std::size_t>(i), bj = static_cast<std::size_t>(j);
      const float* block =
          a_.data() + (bi / kBlockEdge * m_blocks_ + bj / kBlockEdge) * kBlockSize;
      // the lower corner of a diagonal block is not there, the upper half is
      const float value = unit * block[bi % kBlockEdge * kBlockEdge + bj % kBlockEdge];
      rows[static_cast<std::size_t>(i * m + j)] = value;
      rows[static_cast<std::size_t>(j * m + i)] = value;
    }
  }
  return largest_eigenvalue<float>(view(gram_rows_.data(), m, m), steps, lanczos_);
}

void TileMap::iterate(const SpectralMap& map, Executor& executor) {
  if (policy_.direct) {
    iterate_directly(map, executor);
  } else {
    iterate_gram(map, executor);
  }
}

double TileMap::move(MatrixView weight, double decay, double alpha, Executor& executor) {
  const std::size_t items = item_count(output_);
  const std::span<double> sums = squares_.at_least(2 * items);
  const TileUpdate call{.product = output_,
                        .beta = static_cast<float>(output_beta_),
                        .x = policy_.direct ? x_.data() : nullptr,
                        .decay = static_cast<float>(decay),
                        .alpha = static_cast<float>(alpha * output_factor_),
                        .weight = weight.data,
                        .weight_stride = static_cast<std::size_t>(weight.stride),
                        .rows = static_cast<std::size_t>(rows_),
                        .cols = static_cast<std::size_t>(cols_),
                        .squares = sums.data(),
                        .other = policy_.direct && collect_ ? first_x_.data() : nullptr,
                        .inner = sums.data() + items};
  run_items(items, executor, [&](std::size_t first, std::size_t last) {
    kernels_.update(call, first, last);
  });
  double squares = 0, inner = 0;
  for (std::size_t i = 0; i < items; ++i) {
    squares += sums[i];
    if (call.other != nullptr) inner += sums[items + i];
  }
  if (call.other != nullptr) inner_ = inner * factor_ * output_factor_;
  return squares * output_factor_ * output_factor_;
}

}  // namespace pion
