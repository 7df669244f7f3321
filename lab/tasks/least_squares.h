// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "lab/run/task.h"

namespace pion::lab {

// Ill-conditioned least squares with a solution, no noise:
//
//   f(X) = ||A X B - C||_F^2 / 2,  C = A X* B,  X* standard normal, X starts at 0,
//   A = diag(10^0 .. 10^-row_decades),  B = diag(10^0 .. 10^-column_decades).
//
// Exponents are equally spaced, so the Hessian's eigenvalues span 2 (row_decades +
// column_decades) decades. The gradient is A (A X B - C) B. At a constant rate a rule
// whose step has a fixed size cannot come closer than about that size: its loss stays at
// a floor proportional to lr^2. A gradient-sized step (SGD) has no floor but is slow in
// the flat directions.
struct LeastSquaresOptions {
  std::int64_t rows = 20;
  std::int64_t columns = 8;
  double row_decades = 2.0;
  double column_decades = 1.0;
  std::int64_t steps = 20000;
  bool equal_rms = false;  // updates as in equal_rms.h; false: the rule's own
  std::int64_t seed = 0;   // of X*
};

class LeastSquares : public Task {
 public:
  // Throws std::invalid_argument if an option is out of range.
  explicit LeastSquares(const LeastSquaresOptions& options);

  torch::nn::Module& model() override { return *model_; }
  std::int64_t updates() const override { return options_.steps; }
  RoutingOptions routing_options(const Recipe& recipe) const override;
  Json update(std::int64_t index, Optimizer& optimizer) override;
  Json evaluate() override;
  void save(TensorMap& tensors, Json& state) const override;
  void load(const TensorMap& tensors, const Json& state) override;

  torch::Tensor gradient() const;
  double loss() const;

  torch::Tensor weight() const { return weight_; }             // X
  const torch::Tensor& solution() const { return solution_; }  // X*
  const torch::Tensor& row_scales() const { return a_; }       // (rows x 1), A's diagonal
  const torch::Tensor& column_scales() const {
    return b_;
  }  // (1 x columns), B's diagonal

 private:
  torch::Tensor residual() const;  // A X B - C

  LeastSquaresOptions options_;
  std::shared_ptr<torch::nn::Module> model_;
  torch::Tensor weight_, solution_, a_, b_;
};

TaskInfo least_squares_info();

}  // namespace pion::lab
