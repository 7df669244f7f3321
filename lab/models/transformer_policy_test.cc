// SPDX-License-Identifier: Apache-2.0
#include "lab/models/transformer_policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <string>

namespace pion::lab {
namespace {

using torch::Tensor;

std::string message(const TransformerPolicyOptions& options) {
  try {
    TransformerPolicy policy(options);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TransformerPolicy, CountsThatDoNotDivideAreRefused) {
  EXPECT_EQ(message({.d_model = 64, .num_heads = 5}),
            "TransformerPolicy: num_heads must divide d_model = 64, got 5");
  EXPECT_EQ(message({.d_model = 64, .num_heads = 0}),
            "TransformerPolicy: num_heads must divide d_model = 64, got 0");
  EXPECT_EQ(message({.height = 6, .width = 6, .patch = 4}),
            "TransformerPolicy: patch must divide the board, 6 x 6, got 4");
  EXPECT_NE(message({.num_layers = 0}), "accepted");
  EXPECT_NE(message({.mlp_ratio = 0.0}), "accepted");
  EXPECT_EQ(message({}), "accepted");
}

// The formula of the header in double, one sample at a time, every token through every
// layer.
struct Definition {
  const TransformerPolicy& policy;
  std::map<std::string, Tensor> weights;

  explicit Definition(const TransformerPolicy& p) : policy(p) {
    for (const auto& item : p.named_parameters()) {
      weights[item.key()] = item.value().detach().to(torch::kFloat64);
    }
  }
  Tensor linear(const Tensor& x, const std::string& name) const {
    const Tensor y = x.matmul(weights.at(name + ".weight").t());
    const auto bias = weights.find(name + ".bias");
    return bias == weights.end() ? y : y + bias->second;
  }
  Tensor norm(const Tensor& x, const std::string& name) const {
    const Tensor centred = x - x.mean(-1, true);
    const Tensor scaled = centred / (centred.square().mean(-1, true) + 1e-5).sqrt();
    return scaled * weights.at(name + ".weight") + weights.at(name + ".bias");
  }
  Tensor gelu(const Tensor& x) const {
    return 0.5 * x * (1 + torch::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x.pow(3))));
  }
  Tensor attention(const Tensor& x, const std::string& name) const {
    const std::int64_t heads = policy.options().num_heads, d = x.size(1) / heads;
    const Tensor q = linear(x, name + ".q_proj"), k = linear(x, name + ".k_proj"),
                 v = linear(x, name + ".v_proj");
    std::vector<Tensor> read;
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto part = [&](const Tensor& y) { return y.narrow(1, h * d, d); };
      const Tensor scores = part(q).matmul(part(k).t()) / std::sqrt(double(d));
      read.push_back(scores.softmax(-1).matmul(part(v)));
    }
    return linear(torch::cat(read, 1), name + ".o_proj");
  }
  // board: (height, width, planes). Returns the logits, then the value.
  Tensor operator()(const Tensor& board) const {
    const TransformerPolicyOptions& o = policy.options();
    std::vector<Tensor> tokens = {weights.at("position.weight")[0]};
    for (std::int64_t r = 0; r < o.height; r += o.patch) {
      for (std::int64_t c = 0; c < o.width; c += o.patch) {
        const Tensor patch =
            board.narrow(0, r, o.patch).narrow(1, c, o.patch).reshape({-1});
        const auto t = static_cast<std::int64_t>(tokens.size());
        tokens.push_back(linear(patch, "patch_projection") +
                         weights.at("position.weight")[t]);
      }
    }
    Tensor x = torch::stack(tokens);
    for (std::int64_t i = 0; i < o.num_layers; ++i) {
      const std::string layer = "layer" + std::to_string(i);
      x = x + attention(norm(x, layer + ".attention_norm"), layer + ".attention");
      x = x + linear(gelu(linear(norm(x, layer + ".mlp_norm"), layer + ".up_proj")),
                     layer + ".down_proj");
    }
    x = norm(x[0], "final_norm");
    return torch::cat({linear(x, "policy_head"), linear(x, "value_head")});
  }
};

TEST(TransformerPolicy, AgreesWithTheFormulaInDouble) {
  for (const auto& options : {TransformerPolicyOptions{.height = 4,
                                                       .width = 6,
                                                       .planes = 3,
                                                       .patch = 2,
                                                       .d_model = 24,
                                                       .num_layers = 3,
                                                       .num_heads = 3},
                              TransformerPolicyOptions{.height = 3,
                                                       .width = 2,
                                                       .planes = 5,
                                                       .patch = 1,
                                                       .d_model = 8,
                                                       .num_layers = 1,
                                                       .num_heads = 2,
                                                       .mlp_ratio = 1.5}}) {
    torch::manual_seed(4);
    TransformerPolicy policy(options);
    const Tensor boards =
        torch::randn({5, options.height * options.width * options.planes});
    const torch::NoGradGuard no_grad;
    for (Tensor& parameter : policy.parameters())
      parameter.add_(0.1 * torch::randn_like(parameter));
    const PolicyOutput output = policy.forward(boards);
    const Definition definition(policy);
    for (std::int64_t b = 0; b < boards.size(0); ++b) {
      const Tensor expected =
          definition(boards[b]
                         .view({options.height, options.width, options.planes})
                         .to(torch::kFloat64));
      const Tensor got = torch::cat({output.logits[b], output.value[b].unsqueeze(0)});
      // Each of at most 3 layers does 4 dependent products of at most 48 terms and two
      // norms: about 3 * (4 * 48 + 50) roundings of 2^-24 of numbers below 10 in the
      // worst case.
      const double tolerance = 3 * (4 * 48 + 50) * 0x1p-24 * 10;
      EXPECT_LT((got.to(torch::kFloat64) - expected).abs().max().item<double>(),
                tolerance);
      EXPECT_GT(expected.abs().max().item<double>(), 0.1)
          << "the comparison says nothing";
    }
  }
}

TEST(TransformerPolicy, StartsNearlyUniformWithOrthogonalWeights) {
  torch::manual_seed(1);
  TransformerPolicy policy({.d_model = 32});
  const Tensor boards = torch::rand({16, 36 * 9});
  const Tensor p = policy.forward(boards).logits.softmax(-1);
  // policy_head has rows of norm 0.01 and its input norm sqrt(32): logits within 0.057
  EXPECT_LT((p - 0.25).abs().max().item<double>(), 0.25 * (std::exp(2 * 0.057) - 1));
  for (const auto& item : policy.named_parameters()) {
    if (item.key().find("q_proj") == std::string::npos) continue;
    const Tensor w = item.value().detach().to(torch::kFloat64);
    // f32 QR: n eps of a 32 x 32 matrix, entries at most 1
    EXPECT_LT(
        (w.matmul(w.t()) - torch::eye(32, torch::kFloat64)).abs().max().item<double>(),
        32 * 0x1p-23);
  }
}

TEST(TransformerPolicy, EveryParameterReceivesAGradient) {
  torch::manual_seed(2);
  TransformerPolicy policy(
      {.height = 4, .width = 4, .patch = 2, .d_model = 16, .num_heads = 2});
  const PolicyOutput output = policy.forward(torch::rand({8, 16 * 9}));
  (output.logits.log_softmax(-1).select(1, 0).sum() + output.value.square().sum())
      .backward();
  for (const auto& item : policy.named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0.0) << item.key();
  }
}

TEST(TransformerPolicy, ProjectionsHaveTheNamesThatRoutingKnows) {
  TransformerPolicy policy({.num_layers = 1});
  std::set<std::string> names;
  for (const auto& item : policy.named_parameters()) names.insert(item.key());
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    EXPECT_EQ(names.count(std::string("layer0.attention.") + name + ".weight"), 1u)
        << name;
  }
  EXPECT_EQ(names.count("layer0.up_proj.weight"), 1u);
  EXPECT_EQ(names.count("layer0.down_proj.weight"), 1u);
}

}  // namespace
}  // namespace pion::lab
