// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "pion/executor.h"
#include "pion/optim/head_layout.h"
#include "pion/optim/matrix_step.h"
#include "pion/optim/rounding.h"
#include "pion/optim/rule.h"
#include "pion/optim/step_plan.h"
#include "pion/optim/update_statistics.h"

namespace pion {

enum class ElementType { kF32, kF64, kBf16 };

// One parameter in one step: `count` matrices of (rows x cols), one after the other in
// memory, each contiguous. Element-wise rules take count = rows = 1. State is f64 for an
// f64 weight and f32 else; pointers that the rule does not need are null.
struct ParameterUpdate {
  const Rule* rule = nullptr;
  HeadLayout layout;  // matrix rules
  std::int64_t count = 1, rows = 1, cols = 0;
  ElementType weight_type = ElementType::kF32;
  ElementType gradient_type = ElementType::kF32;  // f64 with f64 weights only
  void* weight = nullptr;                         // read, written
  const void* gradient = nullptr;                 // read only
  void* momentum = nullptr;    // momentum_buffer of matrix rules and SGD with momentum
  void* exp_avg = nullptr;     // AdamW
  void* exp_avg_sq = nullptr;  // AdamW
  float* master = nullptr;     // bf16 weights under kMasterCopy
  LowPrecision low_precision = LowPrecision::kMasterCopy;  // bf16 weights
  std::uint64_t seed = 0;  // kStochastic: of this parameter and step
  std::int64_t step = 1;   // number of this step, from 1
  bool maximize = false;   // steps along the gradient
  // Vouched for: zeros, or what a step left behind. Spares matrix rules a look at it.
  bool momentum_is_finite = false;
  // The matrices are a stack, as of experts: one whose gradient is zero in every entry
  // had no part in the loss and is left alone, without decay, as a parameter without a
  // gradient is. Matrix rules only.
  bool stack = false;
  std::string_view name;    // for messages
  UpdateStatistics result;  // written
  // Written: matrix rules, what the step did to every matrix. Holds until the next call
  // with the same workspaces.
  std::span<const UpdateStatistics> matrices;
};

// Scratch memory of step_all that is kept between steps.
struct StepWorkspaces {
  bool collect_spectrum = false;
  struct Thread {
    MatrixStepWorkspace matrix;
    std::vector<float> weight, gradient;  // widened or negated
    std::vector<double> gradient_f64;     // negated
  };
  std::vector<Thread> threads;
  StepPlan plan;
};

// Steps all parameters in place, matrices and blocks of them spread over the threads by
// cost. Results are the same bits for every number of threads. A parameter of several
// matrices is skipped as a whole if one entry of its gradient is not finite under
// NonFinite::kSkip. After the first call with the same updates nothing is allocated, up
// to what matrix_step allocates.
//
// Throws std::invalid_argument, before anything is written, if an update is incomplete or
// out of range, arrays overlap that different updates write, a gradient is not finite
// under kRaise, or a momentum is not finite under kRaise or kZero. Later, when others may
// have been stepped, only memory that runs out can stop it, and a momentum whose average
// with the gradient leaves the range of its type.
//
// Prints nothing: whether a parameter was skipped, and what passed, is in `result`.
void step_all(std::span<ParameterUpdate> updates, Executor& executor,
              StepWorkspaces& workspaces);

}  // namespace pion
