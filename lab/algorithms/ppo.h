// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lab/envs/vector_environment.h"
#include "lab/models/actor_critic.h"

namespace pion::lab {

// Proximal policy optimization with a clipped surrogate.
// Source: J. Schulman et al., arXiv:1707.06347; the details that the paper leaves open
// follow CleanRL's ppo.py and PureJaxRL's ppo.py. E environments x S steps, done_t
// belongs to the transition that ended:
//
//   delta_t = r_t + gamma V_{t+1} (1 - done_t) - V_t    V_S = V(last observation)
//   A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}    A_S = 0
//   target  = A + V_old                              before any normalization
//   A^      = (A - mean A) / (std A + 1e-8)          per mini-batch, ddof 0, L_pi only
//   L_pi    = -mean min(rho A^, clip(rho, 1 - c, 1 + c) A^)
//   V_clip  = V_old + clip(V - V_old, -c, c)
//   L_V     = 1/2 mean max((V - target)^2, (V_clip - target)^2)
//   L       = L_pi + value_coefficient L_V - entropy_coefficient mean H
//
// Then the gradient's global norm is clipped, before the optimizer sees it. A mini-batch
// whose advantages are all zero takes no step: a scale-free optimizer would turn rounding
// noise into a full one. A mini-batch of equal advantages has A^ = 0 exactly.
struct PpoOptions {
  std::int64_t total_timesteps = 100'000;  // of all environments; >= one batch
  std::int64_t horizon = 32;               // S, steps per environment and update; >= 1
  std::int64_t epochs = 4;                 // passes over the batch; >= 1
  std::int64_t minibatches = 4;            // must divide E S
  double gamma = 0.99;                     // discount, in [0, 1]
  double gae_lambda = 0.95;                // in [0, 1]
  double clip = 0.2;                       // c; > 0
  bool clip_value = true;                  // L_V as above; false: 1/2 mean (V - target)^2
  bool normalize_advantages = true;
  double value_coefficient = 0.5;     // >= 0
  double entropy_coefficient = 0.01;  // >= 0
  double max_grad_norm = 0.5;         // global norm; 0: only measured
  bool anneal_lr = true;              // factor 1 - i / updates in update i
  double target_kl = 0.0;  // ends the epochs when approx_kl exceeds it; 0: never
  // At a truncation r_t += gamma V(final observation); false: it counts as a termination,
  // as in CleanRL.
  bool bootstrap_truncated = true;
  std::uint64_t seed = 1;  // of the actions and permutations
};

// A_t of the recursion above. rewards, values, dones: (S x E) floats, time first;
// bootstrap: (E). Returns (S x E). Runs in double, stores float.
torch::Tensor advantages(const torch::Tensor& rewards, const torch::Tensor& values,
                         const torch::Tensor& dones, const torch::Tensor& bootstrap,
                         double gamma, double gae_lambda);

// Transitions, one row each.
struct PpoBatch {
  torch::Tensor observations;  // (n x observation_size)
  torch::Tensor actions;       // (n) int64
  torch::Tensor log_probs;     // (n) of the actions when they were taken
  torch::Tensor values;        // (n) V_old
  torch::Tensor advantages;    // (n) not normalized
  torch::Tensor targets;       // (n)
  PpoBatch rows(const torch::Tensor& indices) const;
};

struct PpoLoss {
  torch::Tensor total;  // scalar with gradient; the others are detached scalars
  torch::Tensor policy, value, entropy;
  torch::Tensor approx_kl;      // mean((rho - 1) - log rho)
  torch::Tensor clip_fraction;  // share of |rho - 1| > c
};
PpoLoss ppo_loss(const PolicyOutput& output, const PpoBatch& batch,
                 const PpoOptions& options);

// One random permutation of 0..n-1 cut into `count` equal parts.
std::vector<torch::Tensor> minibatch_indices(std::int64_t n, std::int64_t count,
                                             torch::Generator generator);

// The learning-rate factor of update `index` of `updates`: linear from 1 towards 0, never
// 0.
double annealing_factor(std::int64_t index, std::int64_t updates);

class Ppo {
 public:
  // Both must outlive this object. Throws std::invalid_argument if an option is out of
  // range.
  Ppo(ActorCritic& model, VectorEnvironment& environment, const PpoOptions& options);

  std::int64_t updates() const;  // total_timesteps / (E S), rounded down

  // One roll-out and `epochs` passes over it. set_lr_factor is called once,
  // before the first step, if options.anneal_lr. Returns the metrics; those of episodes
  // are over the last 100 that finished.
  nlohmann::ordered_json update(std::int64_t index, torch::optim::Optimizer& optimizer,
                                const std::function<void(double)>& set_lr_factor);

  // Everything that a later update() depends on besides model and optimizer. load()
  // throws std::invalid_argument if something is missing or does not fit.
  void save(std::map<std::string, torch::Tensor>& tensors,
            nlohmann::ordered_json& state) const;
  void load(const std::map<std::string, torch::Tensor>& tensors,
            const nlohmann::ordered_json& state);

 private:
  struct Rollout;
  struct Sums;
  struct Episode {
    double reward, length, score;
  };
  Rollout collect();
  void record_step(const StepResult& result, float* rewards, float* dones);
  bool step_minibatch(const PpoBatch& batch, torch::optim::Optimizer& optimizer,
                      Sums& sums);
  void report_episodes(nlohmann::ordered_json& metrics) const;

  ActorCritic& model_;
  VectorEnvironment& environment_;
  PpoOptions options_;
  torch::Generator generator_;
  std::int64_t env_steps_ = 0;
  std::int64_t episodes_finished_ = 0;
  std::deque<Episode> episodes_;  // the last 100 that finished
};

}  // namespace pion::lab
