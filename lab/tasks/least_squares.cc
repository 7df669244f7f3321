// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/least_squares.h"

#include "lab/tasks/control_task.h"

namespace pion::lab {
namespace {

void check_options(const LeastSquaresOptions& o) {
  require(o.rows > 0, "least_squares: rows must be positive", o.rows);
  require(o.columns > 0, "least_squares: columns must be positive", o.columns);
  require(o.steps > 0, "least_squares: steps must be positive", o.steps);
  require(o.row_decades >= 0, "least_squares: row_decades must not be negative",
          o.row_decades);
  require(o.column_decades >= 0, "least_squares: column_decades must not be negative",
          o.column_decades);
}

}  // namespace

LeastSquares::LeastSquares(const LeastSquaresOptions& options)
    : options_((check_options(options), options)),
      model_(std::make_shared<torch::nn::Module>("LeastSquares")) {
  at::Generator generator = seeded_generator(options_.seed);
  solution_ = at::randn({options_.rows, options_.columns}, generator);
  a_ = at::logspace(0.0, -options_.row_decades, options_.rows).unsqueeze(1);
  b_ = at::logspace(0.0, -options_.column_decades, options_.columns).unsqueeze(0);
  weight_ = model_->register_parameter("weight", torch::zeros_like(solution_));
}

RoutingOptions LeastSquares::routing_options(const Recipe& recipe) const {
  return every_parameter_is_a_matrix(Task::routing_options(recipe));
}

// As A (X - X*) B, so that f32 resolves losses far below the floor.
torch::Tensor LeastSquares::residual() const { return (weight_ - solution_) * a_ * b_; }

torch::Tensor LeastSquares::gradient() const {
  const torch::NoGradGuard no_grad;
  return residual() * a_ * b_;
}

double LeastSquares::loss() const {
  const torch::NoGradGuard no_grad;
  return 0.5 * residual().square().sum(at::kDouble).item<double>();
}

Json LeastSquares::update(std::int64_t /*index*/, Optimizer& optimizer) {
  weight_.mutable_grad() = gradient();
  step_optimizer(optimizer, options_.equal_rms);
  return {{"loss", loss()}};
}

Json LeastSquares::evaluate() { return {{"loss", loss()}}; }

// The task draws nothing after construction; what identifies it is the seed.
void LeastSquares::save(TensorMap&, Json& state) const { state["seed"] = options_.seed; }

void LeastSquares::load(const TensorMap&, const Json& state) {
  const auto found = state.find("seed");
  const bool same = found != state.end() && *found == options_.seed;
  require(
      same,
      "least_squares: the checkpoint must be of seed " + std::to_string(options_.seed),
      found == state.end() ? "none" : found->dump());
}

TaskInfo least_squares_info() {
  const LeastSquaresOptions o;
  TaskInfo info;
  info.name = "least_squares";
  info.description = "ill-conditioned least squares without noise";
  info.schema = {
      {"least_squares.rows", o.rows, "rows of X", 1, 1 << 14},
      {"least_squares.columns", o.columns, "columns of X", 1, 1 << 14},
      {"least_squares.row_decades", o.row_decades, "A falls by this power of 10", 0, 16},
      {"least_squares.column_decades", o.column_decades, "B falls by this power of 10", 0,
       16},
      {"least_squares.steps", o.steps, "updates", 1, 1e9},
      {"least_squares.equal_rms", o.equal_rms,
       "every update rescaled to root mean square lr"},
  };
  info.score = "loss";
  info.higher_is_better = false;
  info.curve = "loss";
  info.make = [](const Recipe& r) -> std::unique_ptr<Task> {
    return std::make_unique<LeastSquares>(
        LeastSquaresOptions{.rows = r.integer("least_squares.rows"),
                            .columns = r.integer("least_squares.columns"),
                            .row_decades = r.number("least_squares.row_decades"),
                            .column_decades = r.number("least_squares.column_decades"),
                            .steps = r.integer("least_squares.steps"),
                            .equal_rms = r.flag("least_squares.equal_rms"),
                            .seed = r.integer("seed")});
  };
  return info;
}

}  // namespace pion::lab
