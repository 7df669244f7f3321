// SPDX-License-Identifier: Apache-2.0
// Keys [rl] of the reinforcement-learning task.
#pragma once

#include <cstdint>
#include <string>

#include "lab/algorithms/policy_gradient/estimator_options.h"
#include "lab/rewards/verifier.h"
#include "lab/run/recipe.h"

namespace pion::lab {

// Who computes the log-probabilities of the policy that answered.
enum class OldLogprobs {
  kTraining,    // the training code, one pass more
  kGeneration,  // generation: the same engine, equal up to rounding (about 1e-6 in f32)
};

struct RlvrOptions {
  std::int64_t updates = 60;  // rollouts, each used for epochs x minibatches steps
  std::int64_t prompts = 32;  // of a rollout
  std::int64_t samples = 8;   // answers to each
  std::int64_t max_new_tokens = 48;
  double temperature = 1.0;  // > 0; log-probabilities are of this temperature too
  std::int64_t top_k = 0;
  double top_p = 1.0;
  std::int64_t minibatches = 2;         // optimizer steps of a pass over the rollout
  std::int64_t epochs = 1;              // passes
  std::int64_t micro_batch_tokens = 0;  // prompts and answers in one pass; 0: a minibatch
  double max_grad_norm = 1.0;           // global, before momentum; 0: not clipped
  std::int64_t refills = 4;             // further rollouts that dynamic sampling may draw
  std::int64_t kl_rows = 32;            // answers whose KL to the start is measured
  bool unit_rms = false;  // updates of hidden matrices have root mean square lr
  bool spectra = false;   // evaluations measure the gradient's signal by singular bands
  std::string verifier;   // "": the problems' own
  VerifierOptions verification;
  OldLogprobs old_logprobs = OldLogprobs::kGeneration;
  EstimatorOptions estimator;
  std::uint64_t seed = 1;  // of the order of problems, answers and minibatches

  std::int64_t rows() const { return prompts * samples; }
  bool needs_reference() const;            // in the loss or the reward
  bool needs_generation_logprobs() const;  // as pi of the generating engine, mu
};

Schema rlvr_keys();

// The estimator named by rl.method with what other keys change, everything checked
// together. Throws std::invalid_argument.
RlvrOptions rlvr_options(const Recipe& recipe);

}  // namespace pion::lab
