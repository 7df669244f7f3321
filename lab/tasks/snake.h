// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "lab/algorithms/ppo.h"
#include "lab/envs/snake.h"
#include "lab/models/transformer_policy.h"
#include "lab/run/task.h"

namespace pion::lab {

// A transformer policy learns Snake by PPO.
struct SnakeTaskOptions {
  SnakeOptions environment;
  TransformerPolicyOptions model;  // board and planes are taken from `environment`
  PpoOptions ppo;
  std::int64_t eval_episodes = 100;
  std::uint64_t seed = 1;  // of weights, boards, actions and permutations
};

// What the finished episodes of an evaluation came to.
struct SnakeScores {
  double score_mean = 0, length_mean = 0, win_rate = 0;
  std::int64_t score_max = 0;
};

class SnakeTask : public Task {
 public:
  // Draws the weights from torch's default generator, which it seeds.
  explicit SnakeTask(const SnakeTaskOptions& options);

  torch::nn::Module& model() override { return *model_; }
  std::int64_t updates() const override { return ppo_.updates(); }
  AttentionShape attention_shape() const override;
  RoutingOptions routing_options(const Recipe& recipe) const override;

  // Sets the optimizer's learning-rate factor if ppo.anneal_lr, else leaves it alone.
  Json update(std::int64_t index, Optimizer& optimizer) override;

  // `eval_episodes` greedy games, the same boards at every call and for every seed of
  // training: score_mean, score_max, length_mean, win_rate; and random_score_mean, what
  // uniformly random actions score on as many.
  Json evaluate() override;

  // The first of these games: {"kind": "snake_game", "board": [h, w], "frames": [...]}.
  Json sample() override;

  void save(TensorMap& tensors, Json& state) const override { ppo_.save(tensors, state); }
  void load(const TensorMap& tensors, const Json& state) override {
    ppo_.load(tensors, state);
  }

 private:
  void greedy(std::span<const float> observations, std::span<std::int64_t> actions);
  Snake evaluation_environment(std::int64_t episodes) const;

  SnakeTaskOptions options_;
  Snake environment_;
  std::shared_ptr<TransformerPolicy> model_;
  Ppo ppo_;
  double random_score_mean_ = -1;  // < 0: not played yet
};

TaskInfo snake_info();

}  // namespace pion::lab
