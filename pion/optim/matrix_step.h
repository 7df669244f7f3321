// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pion/optim/rule.h"

namespace pion {

// How a weight is cut into blocks; every block has its own norm, map and scale. The default is
// one block. axis 0 cuts output rows (Q, K, V), axis 1 input columns (the output projection).
// Fused QKV: sizes {H d, K d, K d}, heads {H, K, K}.
struct HeadLayout {
  int axis = 0;
  std::vector<std::int64_t> sizes;  // rows (or columns) of each part; empty: one part, all
  std::vector<std::int64_t> heads = {1};  // heads of each part; each must divide its size

  friend bool operator==(const HeadLayout&, const HeadLayout&) = default;
};

struct Block {
  std::int64_t row, col, rows, cols;
};
// The blocks of a (rows x cols) matrix in order. Throws std::invalid_argument, naming the
// counts, if sizes do not sum up or a head count does not divide.
std::vector<Block> head_blocks(const HeadLayout& layout, std::int64_t rows, std::int64_t cols);

// What one step did to one parameter.
struct UpdateStatistics {
  bool skipped = false;          // non-finite gradient under NonFinite::kSkip
  double gradient_norm = 0;      // ||G||_F
  double update_rms = 0;         // root mean square of lr s O, without weight decay
  double directions_passed = 0;  // sum of ||O||_F^2 over blocks
  double directions = 0;         // sum of min(rows, cols) over blocks
  double stable_rank = 0;        // mean over blocks
  double sigma_max = 0;          // largest over blocks, relative to that block's ||.||_F
  double energy_kept = 0;        // mean over blocks
  double head_spread = 0;        // largest / smallest block norm of the direction; 1 for one
};

// The spectral map that a matrix rule applies to a (rows x cols) block.
SpectralMap rule_map(const Rule& rule, std::int64_t rows, std::int64_t cols);

// The factor s for a block of that shape; kUnitRms depends on O and is applied in the step.
double rule_scale(const MatrixRule& rule, std::int64_t rows, std::int64_t cols);

// Scratch memory of matrix_step that is kept between steps. One per thread.
struct MatrixStepWorkspace {
  SpectralWorkspace spectral;
  std::vector<double> f64;
  std::vector<float> f32;
};

// One step of a matrix rule on one weight, in place:
//
//   M <- mu M + (1 - mu) G
//   D = nesterov ? mu M + (1 - mu) G : M
//   O_b = map(D_b) for every block b
//   W_b <- (1 - lr weight_decay) W_b - lr s O_b
//
//   weight    read, written; (rows x cols), f32 or f64
//   gradient  read only, same shape; float, double or bfloat16
//   momentum  read, written; all zeros before the first step
//
// Throws std::invalid_argument if shapes differ, the layout does not fit, the rule is no matrix
// rule, or the gradient is non-finite under kRaise. Nothing is written when it throws.
template <class T, class G = T>
UpdateStatistics matrix_step(MatrixViewOf<T> weight, MatrixViewOf<const G> gradient,
                             MatrixViewOf<T> momentum, const Rule& rule, const HeadLayout& layout,
                             MatrixStepWorkspace& workspace);

// Element-wise rules on n numbers. `step` counts from 1.
template <class T, class G = T>
UpdateStatistics adamw_step(std::span<T> weight, std::span<const G> gradient, std::span<T> exp_avg,
                            std::span<T> exp_avg_sq, std::int64_t step, const AdamWRule& rule);
template <class T, class G = T>
UpdateStatistics sgd_step(std::span<T> weight, std::span<const G> gradient,
                          std::span<T> momentum_buffer, std::int64_t step, const SgdRule& rule);

// bf16 weights. Either an f32 master copy is stepped and rounded into the weight, or the f32
// result of a step on the widened weight is rounded stochastically with a counter-based
// generator (seed, index): no state, same result for every thread count.
void round_to_nearest(std::span<const float> from, std::span<bfloat16> to);
void round_stochastically(std::span<const float> from, std::span<bfloat16> to, std::uint64_t seed);

// Watches for updates that stay empty: returns a warning once, after `patience` consecutive
// steps whose matrices passed less than half a direction although the gradient was not zero; it
// names the parameter, the cutoff and what to change.
class EmptyUpdateWatch {
 public:
  explicit EmptyUpdateWatch(int patience = 20) : patience_(patience) {}
  std::string observe(std::string_view parameter, const Rule& rule, const UpdateStatistics& what);
  int consecutive() const { return consecutive_; }
  void restore(int consecutive, bool warned) { consecutive_ = consecutive, warned_ = warned; }
  bool warned() const { return warned_; }

 private:
  int patience_;
  int consecutive_ = 0;
  bool warned_ = false;
};

}  // namespace pion
