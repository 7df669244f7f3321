// SPDX-License-Identifier: Apache-2.0
// The choice of one token from its logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pion::lab {

struct TokenChoice {
  std::int64_t token = 0;
  // under the distribution that was sampled from; greedy: temperature 1
  float logprob = 0;
};

// Chooses for one row after the other; keeps its memory between calls.
class TokenSampler {
 public:
  // Meaning and range as in SamplingOptions; not checked here.
  TokenSampler(double temperature, std::int64_t top_k, double top_p)
      : temperature_(temperature), top_k_(top_k), top_p_(top_p) {}

  bool greedy() const { return temperature_ == 0; }

  // `uniform` in [0, 1) decides; greedy ignores it. False, and no choice, if a logit is
  // not finite.
  bool choose(std::span<const float> logits, double uniform, TokenChoice& choice);

 private:
  struct Candidate {
    float logit;
    std::int32_t token;
  };
  TokenChoice choose_whole(std::span<const float> logits, float highest, double uniform);
  TokenChoice choose_from(std::span<const Candidate> kept, double uniform) const;
  std::span<const Candidate> keep(std::span<const float> logits);

  double temperature_;
  std::int64_t top_k_;
  double top_p_;
  std::vector<Candidate> candidates_;
  std::vector<float> weights_;  // exp((logit - highest) / temperature)
};

}  // namespace pion::lab
