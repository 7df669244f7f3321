// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_matrix_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "pion/torch/aten_map.h"

namespace pion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kBlockDims[] = {2, 3};   // of (count, heads, rows, cols)
constexpr std::int64_t kMatrixDims[] = {1, 2};  // of (count, rows, cols)

at::Tensor largest_entry(const at::Tensor& x, at::IntArrayRef dims) {
  return at::linalg_vector_norm(x, kInfinity, dims, /*keepdim=*/true);
}

// (parameters) bool: is every entry finite? values (matrices, 1, 1) are NaN or Inf if
// not.
at::Tensor finite_parameters(const at::Tensor& values, std::int64_t parameters) {
  const at::Tensor finite = values.view({parameters, -1}).lt(kInfinity);
  return finite.size(1) == 1 ? finite.view(-1) : finite.all(1);
}

// One piece's step. In this order: move(), load(), add_figures() if they are wanted,
// write().
class MatrixStep {
 public:
  // `finite` is that of a stack of which the piece is a part; else undefined
  MatrixStep(const Piece& piece, at::Tensor finite)
      : piece_(piece),
        rule_(*matrix_rule(*piece.front().rule)),
        shape_(piece_shape(piece)),
        skips_(rule_.nonfinite == NonFinite::kSkip),
        finite_(std::move(finite)) {}

  void move(bool collect);
  void load(bool keep_direction);
  void add_figures(StatisticsTable& table);
  PassedRows passed();
  void write();

  const at::Tensor& finite() const { return finite_; }

 private:
  bool alone() const { return piece_.steps.size() == 1; }
  std::int64_t parameters() const {
    return static_cast<std::int64_t>(piece_.steps.size());
  }
  void look_at(const Batch& momenta, const Batch& gradients);
  at::Tensor masked_momenta(const Batch& momenta, const Batch& gradients);
  void move_alone(const Batch& momenta, const Batch& gradients);
  double block_scale(std::int64_t rows, std::int64_t cols) const;
  double half_pass(std::int64_t rows, std::int64_t cols) const;
  at::Tensor unit_factor(const at::Tensor& norm, std::int64_t rows,
                         std::int64_t cols) const;

  const Piece& piece_;
  const MatrixRule& rule_;
  const MatrixShape shape_;
  const bool skips_;
  at::Tensor finite_;          // (parameters) bool; undefined: nobody asks
  at::Tensor active_;          // (matrices, 1, 1) bool, of stacks: has a gradient
  at::Tensor mask_;            // (matrices, 1, 1) bool: moves; undefined: all do
  at::Tensor direction_;       // (matrices, rows, cols)
  at::Tensor gradient_sizes_;  // (matrices), of figures
  bool clean_ = false;         // directions that are not kept may hold NaN
  std::vector<LayoutPart> parts_;
  std::vector<at::Tensor> sizes_;  // norms of every part's blocks, (count, heads, 1, 1)
  std::vector<AtenMap> maps_;      // one for every part
};

// Which parameters and matrices move, where that does not follow from the direction.
void MatrixStep::look_at(const Batch& momenta, const Batch& gradients) {
  at::Tensor largest;
  if (shape_.stack || (skips_ && !finite_.defined()))
    largest = largest_entry(gradients.all, kMatrixDims);
  if (skips_ && !finite_.defined()) {
    finite_ = finite_parameters(largest, parameters());
    if (!piece_.front().state->momentum_is_finite) {
      finite_ = finite_.logical_and(
          finite_parameters(largest_entry(momenta.all, kMatrixDims), parameters()));
    }
  }
  if (shape_.stack) active_ = largest > 0;
}

// The new momenta where parameters or matrices are left out: what is left out takes its
// own momentum for the gradient. Returns those gradients.
at::Tensor MatrixStep::masked_momenta(const Batch& momenta, const Batch& gradients) {
  at::Tensor taken = gradients.copied ? gradients.all : at::empty_like(gradients.all);
  at::where_out(taken, mask_, gradients.all, momenta.all);
  momenta.all.lerp_(taken, 1.0 - rule_.momentum);
  return taken;
}

// M <- mu M + (1 - mu) G of one parameter, unless it is left out, without a copy: torch's
// SGD with the gradient G - M and the rate 1 - mu obeys found_inf.
void MatrixStep::move_alone(const Batch& momenta, const Batch& gradients) {
  at::_fused_sgd_({momenta.all}, {gradients.all}, {}, /*weight_decay=*/-1.0,
                  /*momentum=*/0.0, /*lr=*/-(1.0 - rule_.momentum), /*dampening=*/0.0,
                  /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false,
                  /*grad_scale=*/{}, finite_.logical_not().to(at::kFloat));
}

// Moves the momenta and makes the directions.
void MatrixStep::move(bool collect) {
  const double mu = rule_.momentum;
  const Batch momenta = work_state(piece_, &ParameterState::momentum_buffer);
  const Batch gradients = work_gradients(piece_);
  if (collect) gradient_sizes_ = at::linalg_vector_norm(gradients.all, 2, kMatrixDims);
  const bool by_one =
      alone() && !shape_.stack && skips_ && has_fused_steps(momenta.all.device());
  // mu (mu M + (1 - mu) G) + (1 - mu) G, before M is overwritten
  const bool ahead = by_one && rule_.nesterov && !gradients.copied;
  parts_ = layout_parts(piece_.front().options->layout(), shape_);
  const auto measure = [&] {
    for (const LayoutPart& part : parts_) {
      sizes_.push_back(at::linalg_vector_norm(part.cut(direction_), 2, kBlockDims, true));
    }
  };
  if (ahead) {
    direction_ = at::lerp(momenta.all, gradients.all, 1.0 - mu * mu);
    measure();
    for (const at::Tensor& size : sizes_) {
      const at::Tensor finite = finite_parameters(size, 1);
      finite_ = finite_.defined() ? finite_.logical_and(finite) : finite;
    }
  } else {
    look_at(momenta, gradients);
  }
  if (finite_.defined()) {
    mask_ = finite_.view({-1, 1, 1});
    if (shape_.count > 1) mask_ = mask_.repeat_interleave(shape_.count, 0);
  }
  if (active_.defined()) mask_ = mask_.defined() ? mask_.logical_and(active_) : active_;

  at::Tensor taken = gradients.all;
  bool owned = gradients.copied;
  if (by_one) {
    move_alone(momenta, gradients);
  } else if (mask_.defined()) {
    taken = masked_momenta(momenta, gradients);
    owned = true;
  } else {
    momenta.all.lerp_(taken, 1.0 - mu);
  }
  momenta.scatter();
  clean_ =
      skips_ && ((by_one && rule_.nesterov) || !piece_.front().state->momentum_is_finite);
  if (ahead) return;
  if (!rule_.nesterov) {
    direction_ = momenta.all;
  } else {
    direction_ = owned ? taken.lerp_(momenta.all, mu) : at::lerp(taken, momenta.all, mu);
  }
  measure();
}

void MatrixStep::load(bool keep_direction) {
  const at::Tensor keep = mask_.defined() ? mask_.unsqueeze(1) : at::Tensor();
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const at::Tensor d = parts_[i].cut(direction_);
    maps_.emplace_back(rule_map(*piece_.front().rule, d.size(2), d.size(3)), d, sizes_[i],
                       keep, clean_);
  }
  if (!keep_direction) direction_.reset();
}

// s, or under kUnitRms the root mean square that O is rescaled to.
double MatrixStep::block_scale(std::int64_t rows, std::int64_t cols) const {
  const bool transposed = piece_.front().options->layout().transposed;
  return transposed ? rule_scale(rule_, cols, rows) : rule_scale(rule_, rows, cols);
}

double MatrixStep::half_pass(std::int64_t rows, std::int64_t cols) const {
  const Rule& rule = *piece_.front().rule;
  if (!std::holds_alternative<PionRule>(rule)) return 0;
  return half_pass_point(rule_map(rule, rows, cols).sequence);
}

// s under kUnitRms, of ||O||_F.
at::Tensor MatrixStep::unit_factor(const at::Tensor& norm, std::int64_t rows,
                                   std::int64_t cols) const {
  const double entries = static_cast<double>(rows) * static_cast<double>(cols);
  return norm.add(kUnitRmsFloor)
      .reciprocal()
      .mul(block_scale(rows, cols) * std::sqrt(entries));
}

void MatrixStep::add_figures(StatisticsTable& table) {
  if (mask_.defined()) direction_ = at::where(mask_, direction_, 0);
  std::vector<BlockFigures> figures;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const at::Tensor d = parts_[i].cut(direction_);
    const at::Tensor output = maps_[i].output().view(d.sizes());
    const at::Tensor sigma = aten_relative_sigma(d.flatten(0, 1));
    const double scale = block_scale(d.size(2), d.size(3)) * rule_.lr;
    const at::Tensor passed = output.square().sum(kBlockDims);
    BlockFigures one{
        .size = at::linalg_vector_norm(d, 2, kBlockDims),
        .sigma = sigma.view({d.size(0), d.size(1)}),
        .passed = passed,
        .inner = (d * output).sum(kBlockDims),
        .moved = passed * (scale * scale),
        .directions = static_cast<double>(d.size(1) * std::min(d.size(2), d.size(3)))};
    if (rule_.scale == Scale::kUnitRms)
      one.moved = passed *
                  unit_factor(passed.sqrt(), d.size(2), d.size(3)).mul(rule_.lr).square();
    one.half_pass = half_pass(d.size(2), d.size(3));
    figures.push_back(std::move(one));
  }
  table.add(piece_, gradient_sizes_, finite_, active_, figures);
  direction_.reset();
}

PassedRows MatrixStep::passed() {
  PassedRows result{.piece = piece_};
  at::Tensor size, squares;  // (matrices)
  const auto add = [](at::Tensor& sum, const at::Tensor& more) {
    sum = sum.defined() ? sum.add_(more) : more;
  };
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const at::IntArrayRef sizes = sizes_[i].sizes();
    const auto [rows, cols] = parts_[i].block(shape_);
    add(squares, maps_[i].squares().view({sizes[0], sizes[1]}).sum(1));
    add(size, sizes_[i].square().flatten(1).sum(1));
    result.directions += static_cast<double>(sizes[1] * std::min(rows, cols));
    result.half_pass = std::max(result.half_pass, half_pass(rows, cols));
  }
  size.sqrt_();
  // what was left out counts like a zero gradient
  if (mask_.defined()) size.mul_(mask_.view(-1)).nan_to_num_(0, 0, 0);
  result.rows = at::stack({size, squares}, 1).to(at::kFloat);
  return result;
}

// W <- (1 - lr weight_decay) W - lr s O.
void MatrixStep::write() {
  if (rule_.lr == 0) return;
  const Batch weights = work_weights(piece_);
  double kept = 1.0 - rule_.lr * rule_.weight_decay;
  if (kept != 1 && mask_.defined()) {
    const auto type = weights.all.options();
    weights.all.mul_(at::where(mask_, at::full({}, kept, type), at::ones({}, type)));
    kept = 1;
  }
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const at::Tensor to = parts_[i].cut(weights.all), blocks = joined_view(to);
    const std::int64_t rows = to.size(2), cols = to.size(3);
    const double scale = block_scale(rows, cols);
    if (blocks.defined() && rule_.scale != Scale::kUnitRms) {
      maps_[i].add_to(blocks, kept, -rule_.lr * scale);
      continue;
    }
    if (kept != 1) to.mul_(kept);
    if (rule_.scale == Scale::kUnitRms) {
      const at::Tensor norm = maps_[i].squares().sqrt_();
      maps_[i].add_scaled(to, unit_factor(norm, rows, cols), -rule_.lr);
    } else {
      maps_[i].add_scaled(to, {}, -rule_.lr * scale);
    }
  }
  write_weights(piece_, weights);
}

void step_piece(const Piece& piece, MatrixStep& step, StatisticsTable* table,
                std::vector<PassedRows>& passed) {
  step.move(table != nullptr);
  step.load(table != nullptr);
  if (table != nullptr) {
    step.add_figures(*table);
  } else if (is_looked_at(piece.front())) {
    passed.push_back(step.passed());
  }
  step.write();
}

// Of a whole stack, whose parts do not know of one another: (1) bool.
at::Tensor finite_stack(const ParameterStep& step, const MatrixShape& shape) {
  const auto all_of = [&](const at::Tensor& x) {
    return finite_parameters(
        largest_entry(x.reshape({shape.count, shape.rows, shape.cols}), kMatrixDims), 1);
  };
  const at::Tensor finite = all_of(step.gradient);
  if (step.state->momentum_is_finite) return finite;
  return finite.logical_and(all_of(step.state->momentum_buffer));
}

}  // namespace

void step_matrices(const Piece& piece, StatisticsTable* table,
                   std::vector<PassedRows>& passed) {
  const ParameterStep& first = piece.front();
  const MatrixShape shape = piece_shape(piece);
  const std::int64_t most = most_at_once(first, shape.rows, shape.cols);
  if (piece.steps.size() > 1 || shape.count <= most || !first.parameter.is_contiguous()) {
    MatrixStep step(piece, {});
    step_piece(piece, step, table, passed);
    return count_steps(piece, step.finite());
  }
  at::Tensor finite;
  if (matrix_rule(*first.rule)->nonfinite == NonFinite::kSkip)
    finite = finite_stack(first, shape);
  std::vector<PassedRows> parts;
  for (std::int64_t k = 0; k < shape.count; k += most) {
    const Piece part{piece.steps, k, std::min(most, shape.count - k)};
    MatrixStep step(part, finite);
    step_piece(part, step, table, parts);
  }
  count_steps(piece, finite);
  if (parts.empty()) return;
  std::vector<at::Tensor> rows;
  for (const PassedRows& part : parts) rows.push_back(part.rows);
  parts.front().rows = at::cat(rows);
  passed.push_back(std::move(parts.front()));
}

}  // namespace pion
