// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/forgetting.h"

#include <cmath>

#include "lab/tasks/control_task.h"

namespace pion::lab {
namespace {

constexpr std::int64_t kInputs = 64, kHidden = 128, kOutputs = 32;
constexpr std::int64_t kSubspace = 4, kChangeRank = 2, kHeldOut = 1024;
constexpr double kIsotropic = 0.1;  // of task 2's inputs

void check_options(const ForgettingOptions& o) {
  require(o.steps > 0, "forgetting: steps must be positive", o.steps);
  require(o.prompts > 0, "forgetting: prompts must be positive", o.prompts);
  require(o.samples > 1,
          "forgetting: samples must be at least 2, advantages compare them", o.samples);
  require(o.change > 0, "forgetting: change must be positive", o.change);
  require(o.exploration > 0, "forgetting: exploration must be positive", o.exploration);
}

torch::Tensor orthonormal(const torch::Tensor& columns) {
  return std::get<0>(at::linalg_qr(columns));
}

// `weight` + U V^T, scaled; V spans `directions`.
torch::Tensor changed(const torch::Tensor& weight, const torch::Tensor& directions,
                      double change, at::Generator& generator) {
  const torch::Tensor u =
      orthonormal(at::randn({weight.size(0), kChangeRank}, generator));
  const torch::Tensor delta = at::mm(u, orthonormal(directions).t());
  return weight + delta * (change * weight.norm() / delta.norm());
}

double squared_distance(const torch::Tensor& a, const torch::Tensor& b) {
  return (a - b).square().sum(at::kDouble).item<double>();
}

}  // namespace

TwoLayerNet::Pass TwoLayerNet::forward(const torch::Tensor& inputs) const {
  Pass pass;
  pass.hidden = at::relu(at::mm(inputs, w1.t()));
  pass.outputs = at::mm(pass.hidden, w2.t());
  return pass;
}

Forgetting::Forgetting(const ForgettingOptions& options)
    : options_((check_options(options), options)),
      generator_(seeded_generator(options.seed)),
      model_(std::make_shared<torch::nn::Module>("Forgetting")) {
  const torch::NoGradGuard no_grad;
  teacher1_.w1 = at::randn({kHidden, kInputs}, generator_) * std::sqrt(2.0 / kInputs);
  teacher1_.w2 = at::randn({kOutputs, kHidden}, generator_) / std::sqrt(1.0 * kHidden);
  subspace_ = orthonormal(at::randn({kInputs, kSubspace}, generator_));
  const torch::Tensor inside =
      at::mm(subspace_, at::randn({kSubspace, kChangeRank}, generator_));
  teacher2_.w1 = changed(teacher1_.w1, inside, options_.change, generator_);
  const torch::Tensor anywhere = at::randn({kHidden, kChangeRank}, generator_);
  teacher2_.w2 = changed(teacher1_.w2, anywhere, options_.change, generator_);

  student_.w1 = model_->register_parameter("w1", teacher1_.w1.clone());
  student_.w2 = model_->register_parameter("w2", teacher1_.w2.clone());
  held_out1_ = at::randn({kHeldOut, kInputs}, generator_);
  held_out2_ = task2_inputs(kHeldOut, generator_);
  answers1_ = teacher1_.forward(held_out1_).outputs;
  answers2_ = teacher2_.forward(held_out2_).outputs;
  initial_loss_ = squared_distance(student_.forward(held_out2_).outputs, answers2_);
}

torch::Tensor Forgetting::task2_inputs(std::int64_t count,
                                       at::Generator& generator) const {
  // the power of task 1's inputs
  const double spread = std::sqrt(1.0 * kInputs / kSubspace);
  const torch::Tensor inside =
      at::mm(at::randn({count, kSubspace}, generator), subspace_.t());
  return spread * inside + kIsotropic * at::randn({count, kInputs}, generator);
}

RoutingOptions Forgetting::routing_options(const Recipe& recipe) const {
  return every_parameter_is_a_matrix(Task::routing_options(recipe));
}

Forgetting::Batch Forgetting::draw() {
  Batch batch;
  batch.inputs = task2_inputs(options_.prompts, generator_);
  batch.exploration =
      at::randn({options_.prompts, options_.samples, kOutputs}, generator_);
  return batch;
}

torch::Tensor Forgetting::output_gradient(const torch::Tensor& outputs,
                                          const Batch& batch) const {
  const torch::Tensor error = outputs - teacher2_.forward(batch.inputs).outputs;
  const double prompts = static_cast<double>(batch.inputs.size(0));
  if (options_.exact_gradient) return error / prompts;
  // a - f_2(x) = (f - f_2) + exploration eps
  const torch::Tensor miss =
      error.unsqueeze(1) + options_.exploration * batch.exploration;
  const torch::Tensor reward = -miss.square().sum(2);  // (prompts x samples)
  const torch::Tensor centred = reward - reward.mean(1, /*keepdim=*/true);
  const torch::Tensor advantage =
      centred / (reward.std(1, /*unbiased=*/true, /*keepdim=*/true) + 1e-6);
  return -(advantage.unsqueeze(2) * batch.exploration).mean(1) /
         (options_.exploration * prompts);
}

TwoLayerNet Forgetting::gradient(const Batch& batch) const {
  const torch::NoGradGuard no_grad;
  const TwoLayerNet::Pass pass = student_.forward(batch.inputs);
  const torch::Tensor by_outputs = output_gradient(pass.outputs, batch);
  const torch::Tensor by_hidden = at::mm(by_outputs, student_.w2) * (pass.hidden > 0);
  return {at::mm(by_hidden.t(), batch.inputs), at::mm(by_outputs.t(), pass.hidden)};
}

Json Forgetting::update(std::int64_t index, Optimizer& optimizer) {
  const Batch batch = draw();
  const TwoLayerNet by_weight = gradient(batch);
  student_.w1.mutable_grad() = by_weight.w1;
  student_.w2.mutable_grad() = by_weight.w2;
  step_optimizer(optimizer, options_.equal_rms);
  const torch::NoGradGuard no_grad;
  const double miss = squared_distance(student_.forward(batch.inputs).outputs,
                                       teacher2_.forward(batch.inputs).outputs);
  return {{"examples", (index + 1) * options_.prompts * options_.samples},
          {"batch_error", miss / static_cast<double>(options_.prompts)}};
}

Json Forgetting::evaluate() {
  const torch::NoGradGuard no_grad;
  const double forgotten =
      squared_distance(student_.forward(held_out1_).outputs, answers1_) /
      answers1_.square().sum(at::kDouble).item<double>();
  const double loss =
      squared_distance(student_.forward(held_out2_).outputs, answers2_) / initial_loss_;
  return {{"total", loss + forgotten}, {"task2_loss", loss}, {"forgotten", forgotten}};
}

void Forgetting::save(TensorMap& tensors, Json&) const {
  tensors["generator"] = generator_.get_state();
}

void Forgetting::load(const TensorMap& tensors, const Json&) {
  restore_generator(generator_, tensors, "forgetting");
}

TaskInfo forgetting_info() {
  const ForgettingOptions o;
  TaskInfo info;
  info.name = "forgetting";
  info.description =
      "learn a second task from rewards; how much of the first is forgotten?";
  info.schema = {
      {"forgetting.steps", o.steps, "updates", 1, 1e9},
      {"forgetting.prompts", o.prompts, "inputs in one update", 1, 1 << 20},
      {"forgetting.samples", o.samples, "actions for one input", 2, 1 << 20},
      {"forgetting.change", o.change, "norm of the change over that of the weight", 1e-6,
       1e3},
      {"forgetting.exploration", o.exploration, "deviation of an action's entry", 1e-6,
       1e3},
      {"forgetting.exact_gradient", o.exact_gradient,
       "no sampling: gradient of the error"},
      {"forgetting.equal_rms", o.equal_rms,
       "every update rescaled to root mean square lr"},
  };
  info.score = "total";
  info.higher_is_better = false;
  info.curve = "batch_error";
  info.progress = "examples";
  info.make = [](const Recipe& r) -> std::unique_ptr<Task> {
    return std::make_unique<Forgetting>(
        ForgettingOptions{.steps = r.integer("forgetting.steps"),
                          .prompts = r.integer("forgetting.prompts"),
                          .samples = r.integer("forgetting.samples"),
                          .change = r.number("forgetting.change"),
                          .exploration = r.number("forgetting.exploration"),
                          .exact_gradient = r.flag("forgetting.exact_gradient"),
                          .equal_rms = r.flag("forgetting.equal_rms"),
                          .seed = r.integer("seed")});
  };
  return info;
}

}  // namespace pion::lab
