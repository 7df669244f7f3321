// SPDX-License-Identifier: Apache-2.0
// What step_all makes of its updates: tasks for threads. Kept between calls for its
// memory alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pion/optim/elementwise_step.h"
#include "pion/optim/matrix_step.h"
#include "pion/optim/update_statistics.h"

namespace pion {

struct ParameterUpdate;

// Bytes [first, last) that the update of that index writes.
struct WrittenArray {
  std::uintptr_t first, last;
  std::size_t update;
  friend bool operator==(const WrittenArray&, const WrittenArray&) = default;
};

struct StepPlan {
  // One parameter.
  struct Item {
    ParameterUpdate* update;
    std::size_t entries;       // of all its matrices
    std::size_t piece;         // entries that are scanned together: those of one matrix
    double cost;               // of its step, about seconds
    bool scan_first = false;   // before any step; else its own task looks at the gradient
    std::size_t scalars = 0;   // element-wise rules: which of `scalars`
    std::size_t chunks = 0;    // the first of its chunks in `scanned` and `squares`
    std::size_t matrices = 0;  // matrix rules: the first in `results` and `idle`
    // matrix rules: the momentum is looked at before any step; its chunks in
    // `momentum_finite` begin there
    bool look_at_momentum = false;
    std::size_t momentum_chunks = 0;
    bool split = false;  // element-wise rules: stepped by several tasks
    bool zero_nonfinite = false;
    double gradient_squares = 0;  // of items that were scanned first
    bool skipped = false;
    std::size_t scan_chunks() const { return entries / piece * chunk_count(piece); }
    // matrix rules: stepped by blocks, which are plan.blocks[blocks, blocks +
    // block_count) of every matrix and have their results from `block_results` on, matrix
    // by matrix
    bool by_blocks = false;
    std::size_t blocks = 0, block_count = 0, block_results = 0;
  };
  enum class Kind {
    kScan,      // chunks [first, last) of `item`: look at the gradient
    kMomentum,  // chunks [first, last) of `item`: look at the momentum
    kIdle,      // matrix `first` of `item`: whether its gradient is zero in every entry
    kChunks,    // chunks [first, last) of `item`: step
    kWhole,     // whole[first, last): parameters under element-wise rules
    kMatrix,    // matrix `first` of `item`
    kBlock      // block `last` of matrix `first` of `item`
  };
  struct Task {
    Kind kind;
    std::size_t item, first, last;
    double cost;
    std::size_t made;  // how many tasks were made before
  };

  std::vector<Item> items;
  std::vector<ElementwiseScalars> scalars;
  std::vector<std::size_t> whole;  // items
  std::vector<Task> scans, looks, tasks;
  std::vector<Task>
      team_tasks;  // blocks that take all threads together, before the others
  std::vector<RunScan> scanned;           // by chunk
  std::vector<char> momentum_finite;      // by chunk
  std::vector<double> squares;            // of the update, by chunk
  std::vector<UpdateStatistics> results;  // by matrix
  std::vector<char> idle;                 // by matrix: left alone
  std::vector<Block> blocks, layout_blocks;
  std::vector<BlockResult> block_results;
  std::vector<WrittenArray> written, sorted;  // of check_apart

  void clear() {
    items.clear(), scalars.clear(), whole.clear(), scans.clear(), tasks.clear();
    scanned.clear(), squares.clear(), results.clear();
    looks.clear(), momentum_finite.clear(), idle.clear();
    team_tasks.clear(), blocks.clear(), block_results.clear();
  }
};

}  // namespace pion
