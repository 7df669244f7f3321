// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_batch.h"

#include <ATen/ATen.h>
#include <ATen/TensorUtils.h>

#include <algorithm>
#include <map>

#include "pion/torch/aten_rounding.h"

namespace pion {
namespace {

bool alike(const ParameterStep& a, const ParameterStep& b) {
  return a.options == b.options && a.parameter.sizes() == b.parameter.sizes() &&
         a.parameter.scalar_type() == b.parameter.scalar_type() &&
         a.parameter.device() == b.parameter.device() &&
         a.gradient.scalar_type() == b.gradient.scalar_type() &&
         a.state->momentum_is_finite == b.state->momentum_is_finite;
}

// What is looked at first.
struct PieceKey {
  const void* options;
  std::int64_t entries;
  auto operator<=>(const PieceKey&) const = default;
};

// Where somebody has written a parameter since, it replaces its master copy. Both are
// contiguous.
void refresh_masters(const at::Tensor& masters, const at::Tensor& parameters) {
  constexpr std::int64_t kEntries = 1 << 21;  // 7 B each beside them
  const std::int64_t all = masters.numel();
  for (std::int64_t first = 0; first < all; first += kEntries) {
    const std::int64_t count = std::min(kEntries, all - first);
    at::Tensor master = masters.view(-1).narrow(0, first, count);
    const at::Tensor parameter = parameters.view(-1).narrow(0, first, count);
    const at::Tensor kept = master.to(at::kBFloat16).eq(parameter);
    at::where_out(master, kept, master, parameter);
  }
}

std::vector<at::Tensor> parameters_of(const Piece& piece) {
  std::vector<at::Tensor> result;
  for (const ParameterStep* step : piece.steps)
    result.push_back(piece.part_of(step->parameter.detach()));
  return result;
}

bool has_masters(const ParameterStep& step) {
  return step.state->master.defined() &&
         step.options->low_precision() == LowPrecision::kMasterCopy;
}

// (number, sizes of one)
std::vector<std::int64_t> stacked(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> sizes = {static_cast<std::int64_t>(tensors.size())};
  const at::IntArrayRef own = tensors.front().sizes();
  sizes.insert(sizes.end(), own.begin(), own.end());
  return sizes;
}

constexpr std::int64_t kStepBytes = 64 << 20;
std::int64_t lowered = kStepBytes;

}  // namespace

std::int64_t step_bytes() { return lowered; }
LowerStepBytes::LowerStepBytes(std::int64_t bytes) { lowered = bytes; }
LowerStepBytes::~LowerStepBytes() { lowered = kStepBytes; }

std::int64_t most_at_once(const ParameterStep& step, std::int64_t rows,
                          std::int64_t cols) {
  // Bytes of an entry in f32. Matrices: momentum, gradient and X of 2 to 4, or X, weight
  // and four (m x m) of 2 to 4. Others: weight, gradient, two buffers and what is made of
  // them.
  const std::int64_t bytes = is_matrix_rule(*step.rule) ? 24 : 32;
  const std::int64_t width = work_type(step.parameter) == at::kDouble ? 2 : 1;
  return std::max<std::int64_t>(1, step_bytes() / (rows * cols * bytes * width));
}

std::vector<Piece> pieces(std::span<ParameterStep> steps) {
  std::vector<Piece> result;
  std::multimap<PieceKey, std::size_t> open;  // pieces that take more
  for (ParameterStep& step : steps) {
    const std::int64_t entries = step.parameter.numel();
    const std::int64_t most = most_at_once(step, 1, entries);
    const PieceKey key{step.options, entries};
    auto [first, last] = open.equal_range(key);
    const auto found = std::find_if(first, last, [&](const auto& one) {
      return alike(result[one.second].front(), step);
    });
    if (found == last) {
      if (most > 1) open.emplace(key, result.size());
      result.push_back({{&step}});
      continue;
    }
    std::vector<ParameterStep*>& held = result[found->second].steps;
    held.push_back(&step);
    if (static_cast<std::int64_t>(held.size()) == most) open.erase(found);
  }
  return result;
}

at::Tensor Piece::part_of(const at::Tensor& tensor) const {
  if (count == 0) return tensor;
  const MatrixShape shape = matrix_shape(tensor.sizes(), front().options->fold());
  return tensor.reshape({shape.count, shape.rows, shape.cols}).narrow(0, first, count);
}

MatrixShape piece_shape(const Piece& piece) {
  const ParameterStep& step = piece.front();
  if (!is_matrix_rule(*step.rule)) return {1, 1, step.parameter.numel()};
  MatrixShape shape = matrix_shape(step.parameter.sizes(), step.options->fold());
  if (piece.count > 0) shape.count = piece.count;
  return shape;
}

Batch::Batch(std::vector<at::Tensor> tensors, const MatrixShape& shape,
             at::ScalarType type)
    : tensors_(std::move(tensors)) {
  const at::Tensor& first = tensors_.front();
  const auto number = static_cast<std::int64_t>(tensors_.size());
  const std::vector<std::int64_t> sizes = {number * shape.count, shape.rows, shape.cols};
  copied = number > 1 || first.scalar_type() != type || !first.is_contiguous();
  if (!copied) {
    all = first.view(sizes);
    return;
  }
  const at::Tensor copy = at::empty(stacked(tensors_), first.options().dtype(type));
  at::_foreach_copy_(copy.unbind(0), tensors_);
  all = copy.view(sizes);
}

void Batch::scatter() const {
  if (copied) at::_foreach_copy_(tensors_, all.view(stacked(tensors_)).unbind(0));
}

at::Tensor LayoutPart::cut(const at::Tensor& x) const {
  const std::int64_t count = x.size(0), rows = x.size(1), cols = x.size(2);
  const at::Tensor part = x.narrow(1 + axis, offset, size);
  if (axis == 0) return part.view({count, heads, size / heads, cols});
  return part.view({count, rows, heads, size / heads}).transpose(1, 2);
}

std::vector<LayoutPart> layout_parts(const HeadLayout& layout, const MatrixShape& shape) {
  std::vector<std::int64_t> sizes = layout.sizes;
  if (sizes.empty()) sizes = {layout.axis == 0 ? shape.rows : shape.cols};
  std::vector<LayoutPart> parts;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    parts.push_back({layout.axis, offset, sizes[i], layout.heads[i]});
    offset += sizes[i];
  }
  return parts;
}

at::Tensor joined_view(const at::Tensor& x) {
  const std::vector<std::int64_t> sizes = {x.size(0) * x.size(1), x.size(2), x.size(3)};
  const auto strides = at::detail::computeStride(x.sizes(), x.strides(), sizes);
  return strides ? x.view(sizes) : at::Tensor();
}

std::vector<at::Tensor> state_tensors(const Piece& piece,
                                      torch::Tensor ParameterState::* member) {
  std::vector<at::Tensor> result;
  for (const ParameterStep* step : piece.steps) result.push_back(step->state->*member);
  return result;
}

Batch work_state(const Piece& piece, torch::Tensor ParameterState::* member) {
  std::vector<at::Tensor> own = state_tensors(piece, member);
  for (at::Tensor& one : own) one = piece.part_of(one);
  return {std::move(own), piece_shape(piece), work_type(piece.front().parameter)};
}

Batch work_weights(const Piece& piece) {
  const MatrixShape shape = piece_shape(piece);
  if (!has_masters(piece.front()))
    return {parameters_of(piece), shape, work_type(piece.front().parameter)};
  Batch weights = work_state(piece, &ParameterState::master);
  refresh_masters(weights.all, Batch(parameters_of(piece), shape, at::kBFloat16).all);
  return weights;
}

void write_weights(const Piece& piece, const Batch& weights) {
  const ParameterStep& first = piece.front();
  const bool narrow = first.parameter.scalar_type() == at::kBFloat16;
  if (narrow && first.options->low_precision() == LowPrecision::kStochastic) {
    std::vector<std::uint64_t> seeds;
    for (const ParameterStep* step : piece.steps) seeds.push_back(step->seed);
    const Batch rounded(parameters_of(piece), piece_shape(piece), at::kBFloat16);
    const std::vector<std::int64_t> rows = {static_cast<std::int64_t>(seeds.size()), -1};
    const std::int64_t offset = piece.first * weights.all.size(1) * weights.all.size(2);
    aten_round_stochastically(weights.all.view(rows), rounded.all.view(rows), seeds,
                              offset);
    return rounded.scatter();
  }
  weights.scatter();
  if (!narrow || !has_masters(first)) return;
  const std::vector<at::Tensor> parameters = parameters_of(piece);
  at::_foreach_copy_(parameters, weights.all.view(stacked(parameters)).unbind(0));
}

Batch work_gradients(const Piece& piece) {
  std::vector<at::Tensor> own;
  for (const ParameterStep* step : piece.steps)
    own.push_back(piece.part_of(step->gradient));
  const ParameterStep& first = piece.front();
  Batch gradients(std::move(own), piece_shape(piece), work_type(first.parameter));
  at::Tensor& all = gradients.all;
  if (first.options->maximize()) {
    all = gradients.copied ? all.neg_() : all.neg();
    gradients.copied = true;
  }
  if (nonfinite_policy(*first.rule) == NonFinite::kZero) {
    all = gradients.copied ? all.nan_to_num_(0, 0, 0) : all.nan_to_num(0, 0, 0);
    gradients.copied = true;
  }
  return gradients;
}

void count_steps(const Piece& piece, const at::Tensor& finite) {
  const std::vector<at::Tensor> counts = state_tensors(piece, &ParameterState::step);
  if (finite.defined()) {
    at::_foreach_add_(counts, finite.to(at::kLong).unbind(0));
  } else {
    at::_foreach_add_(counts, 1);
  }
}

bool has_fused_steps(const at::Device& device) {
  return device.is_cpu() || device.is_cuda();
}

}  // namespace pion
