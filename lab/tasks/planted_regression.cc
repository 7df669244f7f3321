// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/planted_regression.h"

#include <cmath>

#include "lab/tasks/control_task.h"

namespace pion::lab {
namespace {

// seed s draws what torch.manual_seed(1000 + s) does
constexpr std::int64_t kSeedOffset = 1000;

void check_options(const PlantedOptions& o) {
  require(o.width > 0, "planted_regression: width must be positive", o.width);
  require(o.rank > 0 && o.rank <= o.width,
          "planted_regression: rank must be in [1, width]", o.rank);
  require(o.batch > 0, "planted_regression: batch must be positive", o.batch);
  require(o.steps > 0, "planted_regression: steps must be positive", o.steps);
  require(o.noise >= 0, "planted_regression: noise must not be negative", o.noise);
  require(o.input_decay >= 0, "planted_regression: input_decay must not be negative",
          o.input_decay);
}

// A random matrix with `columns` orthonormal columns.
torch::Tensor orthonormal(std::int64_t rows, std::int64_t columns,
                          at::Generator& generator) {
  return std::get<0>(at::linalg_qr(at::randn({rows, columns}, generator)));
}

torch::Tensor planted_matrix(const PlantedOptions& o, at::Generator& generator) {
  torch::Tensor d = at::linspace(1.0, 0.4, o.rank);
  d = d / d.norm() * std::sqrt(static_cast<double>(o.width));
  const torch::Tensor u = orthonormal(o.width, o.rank, generator);
  const torch::Tensor v = orthonormal(o.width, o.rank, generator);
  return -at::mm(u * d, v.t());
}

torch::Tensor input_deviations(const PlantedOptions& o) {
  const torch::Tensor sd = at::arange(1, o.width + 1, at::kFloat).pow(-o.input_decay);
  return (sd / sd.square().mean().sqrt()).unsqueeze(1);
}

}  // namespace

PlantedRegression::PlantedRegression(const PlantedOptions& options)
    : options_((check_options(options), options)),
      generator_(seeded_generator(kSeedOffset + options.seed)),
      model_(std::make_shared<torch::nn::Module>("PlantedRegression")) {
  target_ = planted_matrix(options_, generator_);
  input_sd_ = input_deviations(options_);
  weight_ = model_->register_parameter("weight", torch::zeros_like(target_));
  initial_excess_ = excess();
}

RoutingOptions PlantedRegression::routing_options(const Recipe& recipe) const {
  return every_parameter_is_a_matrix(Task::routing_options(recipe));
}

PlantedRegression::Batch PlantedRegression::draw() {
  const torch::Tensor x = at::randn({options_.width, options_.batch}, generator_);
  const torch::Tensor z = at::randn({options_.width, options_.batch}, generator_);
  return {options_.input_decay == 0.0 ? x : x * input_sd_, z * options_.noise};
}

torch::Tensor PlantedRegression::gradient(const Batch& batch) const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor residual = at::addmm(batch.noise, weight_ - target_, batch.inputs);
  return at::mm(residual, batch.inputs.t()) / static_cast<double>(batch.inputs.size(1));
}

double PlantedRegression::excess() const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor error = (weight_ - target_) * input_sd_.t();
  return 0.5 * error.square().sum(at::kDouble).item<double>();
}

Json PlantedRegression::update(std::int64_t index, Optimizer& optimizer) {
  weight_.mutable_grad() = gradient(draw());
  step_optimizer(optimizer, options_.equal_rms);
  return {{"examples", (index + 1) * options_.batch},
          {"excess_ratio", excess() / initial_excess_}};
}

Json PlantedRegression::evaluate() {
  const double now = excess();
  return {{"excess_ratio", now / initial_excess_}, {"excess", now}};
}

void PlantedRegression::save(TensorMap& tensors, Json&) const {
  tensors["generator"] = generator_.get_state();
}

void PlantedRegression::load(const TensorMap& tensors, const Json&) {
  restore_generator(generator_, tensors, "planted_regression");
}

TaskInfo planted_regression_info() {
  const PlantedOptions o;
  TaskInfo info;
  info.name = "planted_regression";
  info.description = "find a planted matrix of known rank from noisy minibatches";
  info.schema = {
      {"planted.width", o.width, "W is width x width", 1, 1 << 14},
      {"planted.rank", o.rank, "rank of the matrix to find, at most width", 1, 1 << 14},
      {"planted.batch", o.batch, "samples in one gradient", 1, 1 << 20},
      {"planted.steps", o.steps, "updates", 1, 1e9},
      {"planted.noise", o.noise, "standard deviation of the labels' noise", 0, 1e6},
      {"planted.input_decay", o.input_decay, "input i has deviation ~ i^-input_decay", 0,
       16},
      {"planted.equal_rms", o.equal_rms, "every update rescaled to root mean square lr"},
  };
  info.score = "excess_ratio";
  info.higher_is_better = false;
  info.curve = "excess_ratio";
  info.progress = "examples";
  info.make = [](const Recipe& r) -> std::unique_ptr<Task> {
    return std::make_unique<PlantedRegression>(
        PlantedOptions{.width = r.integer("planted.width"),
                       .rank = r.integer("planted.rank"),
                       .batch = r.integer("planted.batch"),
                       .steps = r.integer("planted.steps"),
                       .noise = r.number("planted.noise"),
                       .input_decay = r.number("planted.input_decay"),
                       .equal_rms = r.flag("planted.equal_rms"),
                       .seed = r.integer("seed")});
  };
  return info;
}

}  // namespace pion::lab
