// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "lab/run/task.h"

namespace pion::lab {

// How much of a first task is forgotten while a second one is learned from rewards. The
// network is f(x) = W2 relu(W1 x), 64-128-32, without biases.
//
// Task 1: x ~ N(0, I). The network starts at teacher 1, W1 ~ N(0, 2/64), W2 ~ N(0,
// 1/128), so it knows this task; it is never trained on it again.
//
// Task 2: x = sqrt(64/4) Q c + 0.1 e, with Q a random 4-dimensional subspace of the
// inputs, c and e standard normal. Teacher 2 adds to each W a random matrix of rank 2 and
// norm change ||W||_F. That of W1 reads from the subspace Q, that of W2 is unrestricted.
//
// Reward: a = f(x) + exploration eps, `samples` draws of eps for each of `prompts`
// inputs; r = -||a - f_2(x)||^2; advantage A = (r - mean) / (sd + 1e-6) over one input's
// draws. The gradient is that of -mean(A log pi(a | x)): d/df = -mean(A eps) /
// exploration.
//
// Measured on 1024 held-out inputs for each task:
//
//   forgotten   F = sum ||f - f_1||^2 / sum ||f_1||^2 on task 1
//   task2_loss  J = sum ||f - f_2||^2, divided by its value at the start, on task 2
//   total       J + F, the score: both are shares of an output's power
//
// change and exploration are set so that SGD at its best rate reaches J = 0.04 and has
// forgotten about 0.15 when J = 0.1.
struct ForgettingOptions {
  std::int64_t steps = 300;     // > 0
  std::int64_t prompts = 16;    // inputs in one update, > 0
  std::int64_t samples = 8;     // actions for one input, > 1
  double change = 0.27;         // norm of teacher 2's change over that of the weight, > 0
  double exploration = 1.0;     // standard deviation of an action's entry, > 0
  bool exact_gradient = false;  // true: of ||f - f_2||^2 / 2, without sampling
  bool equal_rms = true;        // updates as in equal_rms.h; false: the rule's own
  std::int64_t seed = 0;        // of teachers, inputs and actions
};

// relu network of two matrices.
struct TwoLayerNet {
  torch::Tensor w1, w2;  // (128 x 64), (32 x 128)

  struct Pass {
    torch::Tensor hidden;   // (n x 128), after the relu
    torch::Tensor outputs;  // (n x 32)
  };
  Pass forward(const torch::Tensor& inputs) const;  // inputs (n x 64)
};

class Forgetting : public Task {
 public:
  // Throws std::invalid_argument if an option is out of range.
  explicit Forgetting(const ForgettingOptions& options);

  torch::nn::Module& model() override { return *model_; }
  std::int64_t updates() const override { return options_.steps; }
  RoutingOptions routing_options(const Recipe& recipe) const override;
  Json update(std::int64_t index, Optimizer& optimizer) override;
  Json evaluate() override;
  void save(TensorMap& tensors, Json& state) const override;
  void load(const TensorMap& tensors, const Json& state) override;

  struct Batch {
    torch::Tensor inputs;       // (prompts x 64)
    torch::Tensor exploration;  // (prompts x samples x 32), eps
  };
  Batch draw();  // advances the generator
  // The gradient of each matrix for that batch.
  TwoLayerNet gradient(const Batch& batch) const;
  // The derivative of the loss by the network's outputs (prompts x 32).
  torch::Tensor output_gradient(const torch::Tensor& outputs, const Batch& batch) const;

  const TwoLayerNet& student() const { return student_; }
  const TwoLayerNet& teacher(int task) const { return task == 1 ? teacher1_ : teacher2_; }

 private:
  torch::Tensor task2_inputs(std::int64_t count, at::Generator& generator) const;

  ForgettingOptions options_;
  at::Generator generator_;
  std::shared_ptr<torch::nn::Module> model_;
  torch::Tensor subspace_;  // (64 x 4), Q
  TwoLayerNet student_, teacher1_, teacher2_;
  torch::Tensor held_out1_, held_out2_;  // (1024 x 64)
  torch::Tensor answers1_, answers2_;    // (1024 x 32), the teachers' outputs there
  double initial_loss_;
};

TaskInfo forgetting_info();

}  // namespace pion::lab
