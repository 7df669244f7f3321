// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "pion/optim/empty_update_watch.h"
#include "pion/optim/head_layout.h"
#include "pion/optim/rounding.h"
#include "pion/optim/rule.h"
#include "pion/optim/update_statistics.h"

namespace pion {

// The spectral map that a matrix rule applies to a (rows x cols) block. Throws
// std::invalid_argument if the rule is none or its steps cannot reach the cutoff of that
// shape.
SpectralMap rule_map(const Rule& rule, std::int64_t rows, std::int64_t cols);

// The cutoff of that shape. Not for rules with promotion_steps.
double rule_cutoff(const PionRule& rule, std::int64_t rows, std::int64_t cols);

// The factor s for a block of that shape. For kUnitRms, where s depends on O, the root
// mean square that O is rescaled to.
double rule_scale(const MatrixRule& rule, std::int64_t rows, std::int64_t cols);

// The smallest s in [0, 1] with f(s) >= 1/2, to 1e-6; 1 if there is none.
double half_pass_point(const QuinticSequence& sequence);

// What a step under Precision::kFast or kAccurate did to one block.
struct BlockResult {
  bool finite = true;           // false: the momentum is not, and the weight is as it was
  double squares = 0;           // ||O||_F^2
  double moved = 0;             // ||lr s O||_F^2
  double half_pass = 0;         // see UpdateStatistics
  SpectrumStatistics spectrum;  // if the workspace collects them
};

// Scratch memory of matrix_step that is kept between steps. One per thread.
struct MatrixStepWorkspace {
  // Off: sigma_max, stable_rank, energy_kept and head_spread stay 0 and cost nothing.
  bool collect_spectrum = true;
  // Vouched for: every entry of the momentum is finite, as zeros are and what a step
  // leaves behind. Spares a look at it before anything is written.
  bool momentum_is_finite = false;

  template <class T>
  struct Scratch {
    std::vector<T> numbers;  // D, then O
    std::vector<MatrixViewOf<const T>> input;
    std::vector<MatrixViewOf<T>> output;
  };
  struct PreparedMap {
    Rule rule;
    std::int64_t rows, cols;
    SpectralMap map;
    double half_pass;
  };
  SpectralWorkspace spectral;
  Scratch<double> f64;
  Scratch<float> f32;
  std::vector<Block> blocks;
  std::vector<SpectrumStatistics> spectrum;  // one per block
  std::vector<PreparedMap> maps;             // of the rules and block shapes seen
  std::vector<BlockResult> block_results;
  std::vector<float> clean_gradient;  // under NonFinite::kZero
};

// One step of a matrix rule on one weight, in place:
//
//   M <- mu M + (1 - mu) G
//   D = nesterov ? mu M + (1 - mu) G : M
//   O_b = map(D_b) for every block b
//   W_b <- (1 - lr weight_decay) W_b - lr s O_b
//
//   weight    read, written; (rows x cols), float or double; unchanged at lr 0
//   gradient  read only, same shape; float, double or bfloat16
//   momentum  read, written; all zeros before the first step
//
// Computes in T, sums in double, except that Pion and Muon multiply in bf16 under
// Precision::kFast and kAccurate where T is float, G is no double and the CPU has it (see
// spectral_map.h). Momenta below 1.2e-38 may become zero then. A zero D gives a zero O:
// only the decay acts. Under kSkip a non-finite gradient (or momentum, as from a damaged
// checkpoint) leaves everything as it is.
//
// Throws std::invalid_argument if shapes differ, the layout does not fit, the rule is no
// matrix rule or out of range, the gradient is non-finite under kRaise, or the momentum
// is non-finite under kRaise or kZero. Nothing is written when it throws. After the first
// step on a shape polynomial maps allocate nothing; the SVD of low_rank_muon and
// low_pass_muon does. Calls with different weights and workspaces may run in parallel.
template <class T, class G = T>
UpdateStatistics matrix_step(MatrixViewOf<T> weight, MatrixViewOf<const G> gradient,
                             MatrixViewOf<T> momentum, const Rule& rule,
                             const HeadLayout& layout, MatrixStepWorkspace& workspace);

}  // namespace pion
