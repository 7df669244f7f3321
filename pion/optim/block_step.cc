// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/block_step.h"

#include <algorithm>
#include <cmath>

#include "pion/optim/prepared_map.h"
#include "pion/optim/spectrum_summary.h"
#include "pion/spectral/block_map.h"
#include "pion/spectral/scratch.h"

namespace pion {
namespace {

template <class T>
MatrixViewOf<T> part(MatrixViewOf<T> x, const Block& b) {
  return x.data == nullptr ? x : x.block(b.row, b.col, b.rows, b.cols);
}

// W <- decay W - step O
void move(MatrixView weight, ConstMatrixView output, double decay, double step) {
  const auto d = static_cast<float>(decay), s = static_cast<float>(step);
  for (std::int64_t i = 0; i < weight.rows; ++i) {
    float* w = weight.row(i);
    const float* o = output.row(i);
    for (std::int64_t j = 0; j < weight.cols; ++j) w[j] = d * w[j] - s * o[j];
  }
}

}  // namespace

bool steps_by_blocks(const Rule& rule) {
  return std::holds_alternative<PionRule>(rule) || std::holds_alternative<MuonRule>(rule);
}

BlockResult step_block(const BlockwiseMatrix& matrix, const Block& block,
                       MatrixStepWorkspace& workspace, Executor& executor) {
  const MatrixRule& rule = *matrix_rule(*matrix.rule);
  const auto& prepared = prepared_map(workspace, *matrix.rule, block);
  const double share = 1.0 - rule.momentum;
  const BlockSource source{.gradient = part(matrix.gradient, block),
                           .narrow_gradient = part(matrix.narrow_gradient, block),
                           .momentum = part(matrix.momentum, block),
                           .mu = static_cast<float>(rule.momentum),
                           .share = static_cast<float>(matrix.maximize ? -share : share),
                           .nesterov = rule.nesterov};
  BlockMap& map = workspace.spectral.block_map(prepared.map);
  BlockResult result{.half_pass = prepared.half_pass};
  if (!map.load(source, prepared.map, matrix.magnitude, workspace.collect_spectrum,
                executor)) {
    result.finite = false;
    return result;
  }
  map.apply(prepared.map, executor);

  const MatrixView weight = part(matrix.weight, block);
  const double decay = 1.0 - rule.lr * rule.weight_decay;
  double scale = matrix.transposed ? rule_scale(rule, block.cols, block.rows)
                                   : rule_scale(rule, block.rows, block.cols);
  if (rule.scale == Scale::kUnitRms || rule.lr == 0 || decay == 0) {
    // the step depends on all of O, or the weight is not read or not written
    auto& numbers = workspace.f32.numbers;
    const auto entries = static_cast<std::size_t>(block.rows * block.cols);
    if (numbers.size() < entries) numbers.resize(entries);
    const MatrixView output = view(numbers.data(), block.rows, block.cols);
    result.squares = map.store(output, executor);
    if (rule.scale == Scale::kUnitRms) {
      scale *= std::sqrt(static_cast<double>(entries)) /
               (std::sqrt(result.squares) + kUnitRmsFloor);
    }
    if (rule.lr != 0) move(weight, output, decay, rule.lr * scale);
  } else {
    result.squares = map.update(weight, decay, -rule.lr * scale, executor);
  }
  const double step = rule.lr * scale;
  result.moved = step * step * result.squares;
  if (workspace.collect_spectrum) result.spectrum = map.statistics();
  return result;
}

UpdateStatistics merge_blocks(std::span<const Block> blocks,
                              std::span<const BlockResult> results, double norm,
                              bool collect_spectrum) {
  UpdateStatistics update{.gradient_norm = norm};
  double moved = 0, entries = 0;
  SpectrumSummary summary;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block& b = blocks[i];
    const BlockResult& result = results[i];
    if (!result.finite) return {.skipped = true};
    moved += result.moved;
    entries += static_cast<double>(b.rows) * static_cast<double>(b.cols);
    update.directions_passed += result.squares;
    update.directions += static_cast<double>(std::min(b.rows, b.cols));
    update.half_pass = std::max(update.half_pass, result.half_pass);
    if (collect_spectrum) summary.add(result.spectrum, blocks.size());
  }
  update.update_rms = std::sqrt(moved / entries);
  if (collect_spectrum) summary.fill(update);
  return update;
}

}  // namespace pion
