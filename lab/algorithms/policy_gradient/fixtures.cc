// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/fixtures.h"

#include <vector>

namespace pion::lab::fixtures {
namespace {

using torch::Tensor;
using Tokens = std::vector<std::int64_t>;

// Breadth-first, by the tokens so far.
std::vector<Tokens> prefixes_of(int depth, bool end_token) {
  std::vector<Tokens> prefixes = {{}};
  for (std::size_t i = 0; i < prefixes.size(); ++i)
    for (std::int64_t v = 0; v < (end_token ? 2 : 3); ++v) {
      Tokens longer = prefixes[i];
      longer.push_back(v);
      if (static_cast<int>(longer.size()) < depth) prefixes.push_back(longer);
    }
  return prefixes;
}

void append_sequences(Tokens tokens, int depth, bool end_token,
                      std::vector<Tokens>& all) {
  const bool ended = end_token && !tokens.empty() && tokens.back() == 2;
  if (ended || static_cast<int>(tokens.size()) == depth) {
    all.push_back(tokens);
    return;
  }
  for (std::int64_t v = 0; v < 3; ++v) {
    tokens.push_back(v);
    append_sequences(tokens, depth, end_token, all);
    tokens.pop_back();
  }
}

std::int64_t number_of(const std::vector<Tokens>& prefixes, const Tokens& tokens) {
  std::int64_t at = 0;
  while (prefixes[static_cast<std::size_t>(at)] != tokens) ++at;
  return at;
}

}  // namespace

TokenTree make_tree(int depth, bool end_token, const Tensor& logits) {
  at::set_num_threads(1);  // threads only wait for each other over 15 numbers: 15x
  const std::vector<Tokens> prefixes = prefixes_of(depth, end_token);
  std::vector<Tokens> sequences;
  append_sequences({}, depth, end_token, sequences);
  const auto count = static_cast<std::int64_t>(sequences.size());
  TokenTree tree{.logits = logits,
                 .prefix = torch::zeros({count, depth}, torch::kInt64),
                 .token = torch::zeros({count, depth}, torch::kInt64),
                 .mask = torch::zeros({count, depth}, torch::kBool),
                 .reward = torch::arange(count, torch::kFloat64).cos().square()};
  for (std::int64_t j = 0; j < count; ++j) {
    const Tokens& tokens = sequences[static_cast<std::size_t>(j)];
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto at = static_cast<std::int64_t>(t), end = j * depth + at;
      tree.mask.data_ptr<bool>()[end] = true;
      tree.token.data_ptr<std::int64_t>()[end] = tokens[t];
      tree.prefix.data_ptr<std::int64_t>()[end] =
          number_of(prefixes, {tokens.begin(), tokens.begin() + at});
    }
  }
  if (!logits.defined())
    tree.logits = (1 + torch::arange(3 * static_cast<std::int64_t>(prefixes.size()),
                                     torch::kFloat64))
                      .sin()
                      .reshape({-1, 3});
  tree.logits.set_requires_grad(true);
  return tree;
}

TokenTree bandit() {
  TokenTree tree =
      make_tree(1, false, torch::tensor({{0.3, -0.2, 0.5}}, torch::kFloat64));
  tree.reward = torch::tensor({0.0, 0.3, 1.0}, torch::kFloat64);
  return tree;
}

Tensor direction(const TokenTree& tree, const Tensor& rows, const Rollout& rollout,
                 Estimator& estimator) {
  const PreparedBatch batch = estimator.prepare(rollout);
  const Tensor everything = torch::arange(rows.size(0));
  Metrics sums;
  const Tensor loss =
      estimator.loss(tree.logp(rows), rollout, batch, everything, everything, sums);
  return -torch::autograd::grad({loss}, {tree.logits})[0];
}

Tensor expected_direction(const TokenTree& tree, std::int64_t n,
                          const EstimatorOptions& options) {
  const Tensor probability = tree.probability(tree.logits).detach();
  const Tensor logp = tree.logp(tree.all()), everything = torch::arange(n);
  Tensor expected = torch::zeros({}, torch::kFloat64);
  Estimator estimator(options);
  Tokens group(static_cast<std::size_t>(n), 0);
  while (true) {
    const Tensor rows = torch::tensor(group, torch::kInt64);
    const Rollout rollout = tree.rollout(rows);
    const PreparedBatch batch = estimator.prepare(rollout);
    Metrics sums;
    const Tensor loss = estimator.loss(logp.index_select(0, rows), rollout, batch,
                                       everything, everything, sums);
    expected = expected + probability.index_select(0, rows).prod() * loss;
    std::size_t digit = 0;
    while (digit < group.size() && ++group[digit] == tree.sequences()) group[digit++] = 0;
    if (digit == group.size()) break;
  }
  return -torch::autograd::grad({expected}, {tree.logits})[0];
}

}  // namespace pion::lab::fixtures
