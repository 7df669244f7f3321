// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "lab/run/task.h"

namespace pion::lab {

// Linear regression whose answer is known: W starts at 0 and has to become W*, a matrix
// of known rank, from minibatches with label noise. E = W - W*; x is normal, coordinate i
// with standard deviation proportional to i^-input_decay and mean square 1 over all
// coordinates.
//
//   y = W* x - noise z        z standard normal
//   G = (E X + noise Z) X^T / batch
//
// W* = -U diag(d) V^T, U and V random with `rank` orthonormal columns; d falls linearly
// from 1 to 0.4 (rank 4: 1, .8, .6, .4; rank 1: 1), scaled so that ||W*||_F^2 = width.
// The score is the excess loss E||E x||^2 / 2 at the end, divided by the one at the
// start.
struct PlantedOptions {
  std::int64_t width = 128;  // W is width x width; > 0
  std::int64_t rank = 4;     // of W*, in [1, width]
  std::int64_t batch = 32;   // samples in one gradient, > 0
  std::int64_t steps = 200;  // > 0
  double noise = 1.0;        // standard deviation of the labels' noise, >= 0
  double input_decay = 0.0;  // >= 0; 0: inputs are white
  bool equal_rms = true;     // updates as in equal_rms.h; false: the rule's own
  std::int64_t seed = 0;     // of W* and of the minibatches
};

class PlantedRegression : public Task {
 public:
  // Throws std::invalid_argument if an option is out of range.
  explicit PlantedRegression(const PlantedOptions& options);

  torch::nn::Module& model() override { return *model_; }
  std::int64_t updates() const override { return options_.steps; }
  RoutingOptions routing_options(const Recipe& recipe) const override;
  Json update(std::int64_t index, Optimizer& optimizer) override;
  Json evaluate() override;
  void save(TensorMap& tensors, Json& state) const override;
  void load(const TensorMap& tensors, const Json& state) override;

  struct Batch {
    torch::Tensor inputs;  // (width x batch), X
    torch::Tensor noise;   // (width x batch), noise Z
  };
  Batch draw();  // advances the generator
  torch::Tensor gradient(const Batch& batch) const;
  double excess() const;  // E||E x||^2 / 2

  torch::Tensor weight() const { return weight_; }
  const torch::Tensor& target() const { return target_; }      // W*
  const torch::Tensor& input_sd() const { return input_sd_; }  // (width x 1)

 private:
  PlantedOptions options_;
  at::Generator generator_;
  std::shared_ptr<torch::nn::Module> model_;
  torch::Tensor weight_, target_, input_sd_;
  double initial_excess_;
};

TaskInfo planted_regression_info();

}  // namespace pion::lab
