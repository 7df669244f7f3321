// SPDX-License-Identifier: Apache-2.0
// Two policies small enough to enumerate, in f64: every expectation below is a finite
// sum.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "lab/algorithms/policy_gradient/estimator.h"

namespace pion::lab::fixtures {

// F1 and F2 are both trees of prefixes with one free logit vector each. Vocabulary {0, 1,
// 2}; a sequence ends at `depth` tokens, or with token 2 if `end_token`. Prefixes are
// numbered breadth-first, sequences in lexicographic order.
struct TokenTree {
  torch::Tensor logits;  // (prefixes, 3), requires grad
  torch::Tensor prefix;  // (sequences, depth) i64, 0 where padded
  torch::Tensor token;   // (sequences, depth) i64
  torch::Tensor mask;    // (sequences, depth) bool
  torch::Tensor reward;  // (sequences)

  std::int64_t sequences() const { return reward.size(0); }

  // Log-probabilities of the tokens of the sequences `rows`: (rows, depth), 0 where
  // padded.
  torch::Tensor logp(const torch::Tensor& rows) const { return logp_under(logits, rows); }
  torch::Tensor logp_under(const torch::Tensor& some, const torch::Tensor& rows) const {
    const torch::Tensor all = some.log_softmax(1);
    const torch::Tensor at =
        all.index({prefix.index_select(0, rows), token.index_select(0, rows)});
    return torch::where(mask.index_select(0, rows), at, torch::zeros_like(at));
  }
  torch::Tensor all() const { return torch::arange(sequences()); }
  torch::Tensor probability(const torch::Tensor& some) const {
    return logp_under(some, all()).sum(1).exp();
  }
  double objective() const { return (probability(logits) * reward).sum().item<double>(); }
  torch::Tensor objective_gradient() const {
    return torch::autograd::grad({(probability(logits) * reward).sum()}, {logits})[0];
  }
  // What is known when the sequences `rows` were drawn, as one group, from these logits.
  Rollout rollout(const torch::Tensor& rows) const {
    return {.logp_old = logp(rows).detach(),
            .mask = mask.index_select(0, rows),
            .reward = reward.index_select(0, rows),
            .group = torch::zeros({rows.size(0)}, torch::kInt64)};
  }
};

// `logits` undefined: logit of token v at prefix i is sin(1 + 3 i + v), which is F2.
TokenTree make_tree(int depth, bool end_token, const torch::Tensor& logits);

// F1: a softmax over three arms, a tree of depth 1.
TokenTree bandit();

// Minus the gradient of the loss of the whole rollout, in the tree's logits.
torch::Tensor direction(const TokenTree& tree, const torch::Tensor& rows,
                        const Rollout& rollout, Estimator& estimator);

// The expected direction over all groups of n independent sequences.
torch::Tensor expected_direction(const TokenTree& tree, std::int64_t n,
                                 const EstimatorOptions& options);

inline double cosine(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a * b).sum() / (a.norm() * b.norm())).item<double>();
}
inline double norm_ratio(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.norm() / b.norm()).item<double>();
}
inline double largest_difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace pion::lab::fixtures
