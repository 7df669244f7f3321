// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pion/kernels/tiles.h"
#include "pion/spectral/block_map.h"
#include "pion/spectral/flush_denormals.h"
#include "pion/spectral/largest_eigenvalue.h"
#include "pion/spectral/scratch.h"
#include "pion/spectral/tile_policy.h"

namespace pion {

// A BlockMap with bf16 products.
//
// Where the long side is at least 1.5 times the short one, m, the map runs in Gram space,
// on (m x m) matrices alone. With A = X X^T, Q = I and P = b A + c A^2 for every (a, b,
// c):
//
//   Q <- a Q + P Q,  T = a A + P A,  A <- a T + P T       and once at the end   O = Q X
//
// The factor a stays outside of the rounded products. Where Q grows much and rounding is
// coarse, X <- Q X and its Gram matrix are formed once before the last steps and Q begins
// at I again. Nearly square matrices run
//
//   X <- a X + P X
//
// with X kept in f32. All sums are f32. Errors and costs: docs/kernels.md.
class TileMap : public BlockMap {
 public:
  explicit TileMap(CpuTarget target);  // throws unless has_bf16(target)
  explicit TileMap(const TileKernels& kernels) : kernels_(kernels) {}  // which outlive it

 private:
  struct Tiles {  // of a symmetric matrix, and of what rounding left over
    Bf16Bits* rounded = nullptr;
    Bf16Bits* rest = nullptr;
  };

  struct Step {  // in Gram space
    Quintic quintic;
    bool first, last;
    Tiles a_left, a_right, p, t, q;       // what it multiplies
    Tiles next_left, next_right, next_q;  // what it leaves
  };

  // Splits items over the threads.
  template <class Work>
  static void run_items(std::size_t items, Executor& executor, Work work) {
    if (executor.threads() == 1) return work(std::size_t{0}, items);
    executor.run(static_cast<int>(items), [&](int item, int) {
      const FlushDenormals flush;
      work(static_cast<std::size_t>(item), static_cast<std::size_t>(item) + 1);
    });
  }

  void allocate(const SpectralMap& map) override;
  std::uint32_t load_all(const BlockSource& source, float scale, bool update_momentum,
                         Executor& executor) override;
  double gram_trace() const override;
  double largest_eigenvalue_of_gram(int steps) override;
  void iterate(const SpectralMap& map, Executor& executor) override;
  double move(MatrixView weight, double decay, double alpha, Executor& executor) override;

  void load_rows(const BlockSource& source, float scale, bool update_momentum,
                 std::size_t chunk, std::size_t task, std::uint32_t& largest);
  void transpose_piece(const Bf16Bits* left, std::size_t left_step, const Bf16Bits* right,
                       std::size_t right_step, std::size_t tiles, std::size_t task);
  void add_gram(std::size_t chunk, Executor& executor);
  void gram_of_kept(Executor& executor);

  Tiles tiles(Scratch<Bf16Bits>& memory, bool with_rest);
  TileProduct short_product(const Tiles& left, const Tiles& right) const;
  TileProduct long_product(const Tiles& q) const;
  void run_symmetric(const TileSymmetric& call, Executor& executor);
  void round_gram(double square, const float* gram, float* out, const Tiles& left,
                  const Tiles& right, Executor& executor, bool rounded = false);
  void iterate_gram(const SpectralMap& map, Executor& executor);
  Step step_at(const SpectralMap& map, std::size_t k, std::size_t begin, std::size_t end);
  void form_p(const Step& step, Executor& executor);
  void advance_q(const Step& step, Executor& executor);
  void advance_a(const Step& step, Executor& executor);
  Tiles run_steps(const SpectralMap& map, std::size_t begin, std::size_t end,
                  Executor& executor);
  void advance(const TileProduct& product, double alpha, double beta, float* x,
               Executor& executor, bool rounded = false);
  void iterate_directly(const SpectralMap& map, Executor& executor);
  double symmetric_inner_product(const float* s, const float* r) const;

  const TileKernels& kernels_;

  // the block at hand, whose X or X^T is (m x n)
  TilePolicy policy_;
  bool whole_ = false;  // all of X is kept in both layouts
  std::size_t row_blocks_ = 0, col_blocks_ = 0;
  std::size_t m_blocks_ = 0, n_blocks_ = 0, chunk_tiles_ = 0;
  std::size_t left_step_ = 0, right_step_ = 0;  // of the tiles of all of X
  // O = output_factor (output + output_beta x); x of the direct iteration only
  TileProduct output_;
  double output_factor_ = 1, output_beta_ = 0;

  Scratch<Bf16Bits> kept_left_, kept_right_;    // all of X
  Scratch<Bf16Bits> other_left_, other_right_;  // the next X
  Scratch<Bf16Bits> chunk_, transposed_;        // a piece along n
  Scratch<Bf16Bits> a_left_, a_right_, p_tiles_, t_right_, q_tiles_,
      q_other_;                         // and rests
  Scratch<float> x_, first_x_;          // blocks of X
  Scratch<float> a_, t_, q_, first_a_;  // blocks (m x m)
  Scratch<float> gram_rows_;            // (m x m) row-major, for Lanczos
  Scratch<double> squares_;             // one per item
  std::vector<std::uint32_t> largest_;  // one per row of blocks
  LanczosScratch lanczos_;
};

}  // namespace pion
