// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_statistics.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "pion/optim/step_checks.h"

namespace pion {
namespace {

constexpr int kColumns = 11;  // in the order of UpdateStatistics

using Columns = std::vector<at::Tensor>;

// (rows, kColumns) of columns that are (rows), numbers or missing at the end.
at::Tensor table_of(const Columns& columns, const at::Tensor& like, std::int64_t rows) {
  const at::Tensor table =
      at::zeros({rows, kColumns}, like.options().requires_grad(false));
  for (std::size_t i = 0; i < columns.size(); ++i)
    if (columns[i].defined())
      table.select(1, static_cast<std::int64_t>(i)).copy_(columns[i]);
  return table;
}

// 1 for every matrix of a parameter that was skipped.
at::Tensor skipped_rows(const at::Tensor& finite, std::int64_t rows) {
  if (!finite.defined()) return {};
  return finite.logical_not().repeat_interleave(rows / finite.numel());
}

at::Tensor row_sizes(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, at::IntArrayRef{1, 2});
}

at::Tensor joined(std::span<const BlockFigures> parts,
                  at::Tensor BlockFigures::* member) {
  std::vector<at::Tensor> all;
  for (const BlockFigures& part : parts) all.push_back(part.*member);
  return at::cat(all, 1);
}

UpdateStatistics unpack(const double* values) {
  if (values[0] != 0) return {.skipped = true};
  if (values[10] != 0) return {.idle = 1};
  return {.skipped = false,
          .gradient_norm = values[1],
          .update_rms = values[2],
          .directions_passed = values[3],
          .directions = values[4],
          .stable_rank = values[5],
          .sigma_max = values[6],
          .energy_kept = values[7],
          .head_spread = values[8],
          .half_pass = values[9]};
}

}  // namespace

void StatisticsTable::add(const Piece& piece, const at::Tensor& sizes,
                          const at::Tensor& finite, const at::Tensor& active,
                          std::span<const BlockFigures> parts) {
  const std::int64_t rows = sizes.size(0);
  const MatrixShape shape = piece_shape(piece);
  const auto entries = static_cast<double>(shape.rows * shape.cols);
  const at::Tensor size = joined(parts, &BlockFigures::size);
  const at::Tensor sigma = joined(parts, &BlockFigures::sigma);
  const at::Tensor passed = joined(parts, &BlockFigures::passed);
  const at::Tensor inner = joined(parts, &BlockFigures::inner);
  const at::Tensor moved = joined(parts, &BlockFigures::moved).sum(1);
  const auto safe = [](const at::Tensor& x) { return at::where(x > 0, x, 1); };
  const at::Tensor energy = (inner / safe(size)).pow(2).div(safe(passed)).clamp_max(1.0);
  const at::Tensor largest = size.amax(1);
  const at::Tensor smallest = at::where(size > 0, size, INFINITY).amin(1);
  double directions = 0, half_pass = 0;
  for (const BlockFigures& part : parts) {
    directions += part.directions;
    half_pass = std::max(half_pass, part.half_pass);
  }
  const auto number = [&](double value) { return at::full({}, value, size.options()); };
  rows_.push_back(table_of(
      {skipped_rows(finite, rows), sizes, moved.div(entries).sqrt(), passed.sum(1),
       number(directions), at::where(sigma > 0, sigma.pow(-2), 0).mean(1), sigma.amax(1),
       at::where(passed > 0, energy, 0).mean(1),
       at::where(largest > 0, largest / smallest, 1), number(half_pass),
       active.defined() ? active.logical_not().view(-1) : at::Tensor()},
      size, rows));
  pieces_.push_back(piece);
}

void StatisticsTable::add(const Piece& piece, const at::Tensor& gradients,
                          const at::Tensor& finite, const at::Tensor& update) {
  const std::int64_t rows = gradients.size(0);
  const auto entries = static_cast<double>(gradients.size(2));
  rows_.push_back(table_of({skipped_rows(finite, rows), row_sizes(gradients),
                            row_sizes(update).div(std::sqrt(entries))},
                           gradients, rows));
  pieces_.push_back(piece);
}

void StatisticsTable::fill_results() {
  if (rows_.empty()) return;
  const at::Device device = rows_.front().device();
  bool wide = false;
  for (const at::Tensor& one : rows_) wide |= one.scalar_type() == at::kDouble;
  const at::ScalarType type = wide ? at::kDouble : at::kFloat;
  for (at::Tensor& one : rows_) one = one.to(device, type, /*non_blocking=*/true);
  const at::Tensor all = at::cat(rows_).cpu().to(at::kDouble);
  const double* row = all.const_data_ptr<double>();
  std::map<ParameterStep*, std::vector<UpdateStatistics>> found;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const std::vector<ParameterStep*>& steps = pieces_[i].steps;
    const std::int64_t each = rows_[i].size(0) / static_cast<std::int64_t>(steps.size());
    for (ParameterStep* step : steps) {
      for (std::int64_t k = 0; k < each; ++k, row += kColumns)
        found[step].push_back(unpack(row));
    }
  }
  for (auto& [step, rows] : found) {
    step->result = combine(rows);
    const bool stack = is_matrix_rule(*step->rule) &&
                       matrix_shape(step->parameter.sizes(), step->options->fold()).stack;
    if (stack) step->matrices = std::move(rows);
  }
}

}  // namespace pion
