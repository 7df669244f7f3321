// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/block_tasks.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>

#include "pion/optim/block_step.h"
#include "pion/optim/step_work.h"

namespace pion {
namespace {

using Item = StepPlan::Item;
using Kind = StepPlan::Kind;
using Task = StepPlan::Task;

// A block that costs so much more than an even share of the dear ones is for all threads.
constexpr double kUneven = 1.25;

BlockwiseMatrix matrix_of(const ParameterUpdate& update, std::size_t k,
                          double magnitude) {
  const std::int64_t rows = update.rows, cols = update.cols;
  const std::size_t first = k * static_cast<std::size_t>(rows * cols);
  BlockwiseMatrix matrix{
      .weight = view(static_cast<float*>(update.weight) + first, rows, cols),
      .momentum = view(static_cast<float*>(update.momentum) + first, rows, cols),
      .maximize = update.maximize,
      .rule = update.rule,
      .transposed = update.layout.transposed,
      .magnitude = magnitude};
  if (update.gradient_type == ElementType::kBf16) {
    matrix.narrow_gradient =
        view(static_cast<const bfloat16*>(update.gradient) + first, rows, cols);
  } else {
    matrix.gradient =
        view(static_cast<const float*>(update.gradient) + first, rows, cols);
  }
  return matrix;
}

}  // namespace

bool may_step_by_blocks(const ParameterUpdate& update) {
  return update.weight_type == ElementType::kF32 && update.momentum_is_finite &&
         steps_by_blocks(*update.rule);
}

void add_block_tasks(StepPlan& plan, std::size_t i) {
  Item& item = plan.items[i];
  const ParameterUpdate& update = *item.update;
  fill_head_blocks(update.layout, update.rows, update.cols, plan.layout_blocks);
  const auto count = static_cast<std::size_t>(update.count);
  item.blocks = plan.blocks.size();
  item.block_count = plan.layout_blocks.size();
  item.block_results = plan.block_results.size();
  plan.blocks.insert(plan.blocks.end(), plan.layout_blocks.begin(),
                     plan.layout_blocks.end());
  plan.block_results.resize(item.block_results + count * item.block_count);
  const double entries =
      static_cast<double>(update.rows) * static_cast<double>(update.cols);
  for (std::size_t k = 0; k < count; ++k) {
    for (std::size_t b = 0; b < item.block_count; ++b) {
      const Block& block = plan.layout_blocks[b];
      const double part =
          static_cast<double>(block.rows) * static_cast<double>(block.cols) / entries;
      plan.tasks.push_back({Kind::kBlock, i, k, b,
                            item.cost * part / static_cast<double>(count),
                            plan.tasks.size()});
    }
  }
}

void form_teams(StepPlan& plan, double total, std::size_t threads) {
  std::vector<Task>& tasks = plan.tasks;
  const double dear = total / static_cast<double>(4 * threads);
  std::size_t end = 0;
  double rest = 0;
  while (end < tasks.size() && tasks[end].kind == Kind::kBlock &&
         tasks[end].cost > dear) {
    rest += tasks[end++].cost;
  }
  std::size_t begin = 0;
  const auto share = static_cast<double>(threads);
  while (begin < end && tasks[begin].cost * share > kUneven * rest) {
    rest -= tasks[begin++].cost;
  }
  const std::size_t over = (end - begin) % threads;
  const auto at = [&tasks](std::size_t i) {
    return tasks.begin() + static_cast<std::ptrdiff_t>(i);
  };
  plan.team_tasks.insert(plan.team_tasks.end(), at(0), at(begin));
  plan.team_tasks.insert(plan.team_tasks.end(), at(end - over), at(end));
  tasks.erase(at(end - over), at(end));
  tasks.erase(at(0), at(begin));
}

void run_block(StepPlan& plan, const Task& task, StepWorkspaces::Thread& thread,
               Executor& executor) {
  const Item& item = plan.items[task.item];
  if (plan.idle[item.matrices + task.first]) return;
  if (item.zero_nonfinite) {  // once, by who has the first block
    if (task.last == 0) {
      plan.results[item.matrices + task.first] =
          step_matrix(*item.update, task.first, thread);
    }
    return;
  }
  const double magnitude =
      std::sqrt(item.gradient_squares / static_cast<double>(item.entries));
  plan.block_results[item.block_results + task.first * item.block_count + task.last] =
      step_block(matrix_of(*item.update, task.first, magnitude),
                 plan.blocks[item.blocks + task.last], thread.matrix, executor);
}

void merge_block_results(StepPlan& plan, const Item& item, bool collect_spectrum) {
  if (item.zero_nonfinite) return;  // the matrices have been stepped as a whole
  const auto blocks =
      std::span<const Block>(plan.blocks).subspan(item.blocks, item.block_count);
  for (std::size_t k = 0; k < static_cast<std::size_t>(item.update->count); ++k) {
    if (plan.idle[item.matrices + k]) continue;
    const auto results =
        std::span<const BlockResult>(plan.block_results)
            .subspan(item.block_results + k * item.block_count, item.block_count);
    UpdateStatistics& result = plan.results[item.matrices + k];
    result = merge_blocks(blocks, results, 0.0, collect_spectrum);
    if (result.skipped && nonfinite_policy(*item.update->rule) != NonFinite::kSkip) {
      throw std::invalid_argument(
          "step_all: the momentum must be finite, got NaN or Inf; restart it from zeros");
    }
  }
}

}  // namespace pion
