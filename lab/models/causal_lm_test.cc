// SPDX-License-Identifier: Apache-2.0
#include "lab/models/causal_lm.h"

#include <gtest/gtest.h>

#include <map>

#include "lab/models/causal_lm_pack.h"
#include "lab/models/causal_lm_tiny_test.h"
#include "pion/torch/route_module.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using Tokens = std::vector<std::int64_t>;

// Two ways to the same f32 sums of at most 64 terms of size 10, through three layers.
constexpr double kTolerance = 2e-5;

torch::Tensor alone(CausalLm& model, const Tokens& tokens) {
  const torch::NoGradGuard no_gradients;
  return model.hidden(torch::tensor(tokens).unsqueeze(0), torch::tensor({0}))[0];
}

double distance(const torch::Tensor& a, const torch::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(CausalLm, LeftPaddingChangesNothing) {
  for (const auto architecture :
       {LmArchitecture::kQwen2, LmArchitecture::kQwen3, LmArchitecture::kLlama}) {
    const auto model = tiny_model(tiny_config(architecture));
    const torch::NoGradGuard no_gradients;
    // the padding token is a real one elsewhere: only `starts` tells
    const torch::Tensor tokens = torch::tensor({{9, 9, 9, 4, 5}, {1, 2, 3, 4, 5}});
    const torch::Tensor hidden = model->hidden(tokens, torch::tensor({3, 0}));
    ASSERT_EQ(hidden.sizes(), torch::IntArrayRef({2, 5, 24}));
    EXPECT_EQ(hidden[0].narrow(0, 0, 3).abs().max().item<double>(), 0);
    EXPECT_LE(distance(hidden[0].narrow(0, 3, 2), alone(*model, {4, 5})), kTolerance);
    EXPECT_LE(distance(hidden[1], alone(*model, {1, 2, 3, 4, 5})), kTolerance);
    const torch::Tensor logits = model->logits(hidden);
    EXPECT_EQ(logits.sizes(), torch::IntArrayRef({2, 5, 23}));
    EXPECT_EQ(logits.scalar_type(), torch::kFloat32);
  }
}

TEST(CausalLm, AnswersThatShareAPromptAreAsIfTheyHadItThemselves) {
  const auto model = tiny_model(tiny_config());
  const std::vector<PackedSequence> shared = {{{1, 2, 3}}, {{4, 5}, 0},
                                              {{}, 0},     {{6, 7, 8, 9, 10, 11}, 0},
                                              {{5}},       {{6, 1, 1}, 4}};
  const TokenPack pack = pack_tokens(shared);
  EXPECT_EQ(pack.tokens.numel(), 15);
  const torch::NoGradGuard no_gradients;
  const torch::Tensor hidden = model->hidden(pack);
  for (std::size_t i = 0; i < shared.size(); ++i) {
    const auto length = static_cast<std::int64_t>(shared[i].tokens.size());
    if (length == 0) continue;
    Tokens whole;
    if (shared[i].continues >= 0) whole = shared[shared[i].continues].tokens;
    whole.insert(whole.end(), shared[i].tokens.begin(), shared[i].tokens.end());
    const torch::Tensor expected = alone(*model, whole);
    EXPECT_LE(distance(hidden.narrow(0, pack.begins[i], length),
                       expected.narrow(0, expected.size(0) - length, length)),
              kTolerance)
        << "sequence " << i;
  }
}

TEST(CausalLm, CheckpointingGivesTheSameGradientsToTheBit) {
  for (const bool tied : {false, true})
    for (const char* dtype : {"float32", "bfloat16"}) {
      CausalLmConfig config = tiny_config(LmArchitecture::kQwen3);
      config.tie_word_embeddings = tied;
      config.dtype = dtype;
      const auto model = tiny_model(config);
      std::map<std::string, torch::Tensor> gradients;
      torch::Tensor loss;
      for (const bool on : {false, true}) {
        model->set_gradient_checkpointing(on);
        model->zero_grad();
        const torch::Tensor hidden = model->hidden(
            torch::tensor({{0, 1, 2, 3}, {4, 5, 6, 7}}), torch::tensor({1, 0}));
        const torch::Tensor now = model->logits(hidden).square().mean();
        now.backward();
        if (on) {
          EXPECT_TRUE(torch::equal(now, loss));
        }
        loss = now.detach();
        for (const auto& item : model->named_parameters()) {
          ASSERT_TRUE(item.value().grad().defined()) << item.key();
          if (on) {
            EXPECT_TRUE(torch::equal(item.value().grad(), gradients[item.key()]))
                << item.key();
          }
          gradients[item.key()] = item.value().grad().clone();
        }
      }
    }
}

TEST(CausalLm, CheckpointingSparesFrozenParameters) {
  const auto model = tiny_model(tiny_config());
  for (auto& item : model->named_parameters())
    if (item.key().find("layers.1.") == std::string::npos)
      item.value().set_requires_grad(false);
  model->set_gradient_checkpointing(true);
  model->hidden(torch::tensor({{1, 2}}), torch::tensor({0})).sum().backward();
  for (const auto& item : model->named_parameters())
    EXPECT_EQ(item.value().grad().defined(),
              item.key().find("layers.1.") != std::string::npos)
        << item.key();
}

// Of the directional derivative, in f32 with a step of 1e-2: the error is of third order
// in the step, and rounding 1e-7 / 1e-2.
TEST(CausalLm, GradientsAreDerivatives) {
  const auto model = tiny_model(tiny_config(LmArchitecture::kQwen3));
  const torch::Tensor tokens = torch::tensor({{0, 1, 2, 3, 9}, {4, 5, 6, 7, 8}});
  const torch::Tensor starts = torch::tensor({2, 0});
  const torch::Tensor weights = torch::randn({2, 5, 23});
  const auto loss = [&] {
    return (model->logits(model->hidden(tokens, starts)).log_softmax(-1) * weights)
        .sum(torch::kFloat64);
  };
  loss().backward();
  const torch::NoGradGuard no_gradients;
  for (const auto& item : model->named_parameters()) {
    torch::Tensor weight = item.value();
    const torch::Tensor gradient = weight.grad();
    const double norm = gradient.norm().item<double>();
    ASSERT_GT(norm, 0) << item.key();
    const torch::Tensor direction = gradient / norm;
    const double step = 3e-3;
    weight.add_(direction, step);
    const double above = loss().item<double>();
    weight.add_(direction, -2 * step);
    const double below = loss().item<double>();
    weight.add_(direction, step);
    EXPECT_NEAR((above - below) / (2 * step), norm, 5e-3 * norm + 1e-2) << item.key();
  }
}

TEST(CausalLm, RoutingKnowsEveryParameter) {
  for (const bool tied : {false, true}) {
    CausalLmConfig config = tiny_config(LmArchitecture::kQwen3);
    config.tie_word_embeddings = tied;
    RoutingOptions options;
    options.attention = {.heads = 6, .kv_heads = 2, .head_dim = 10};
    const Routing routing = route(CausalLm(config), options);
    std::map<std::string, Role> roles;
    for (const Route& one : routing.routes) roles[one.parameter.name] = one.role;
    EXPECT_EQ(roles.size(), 2u + 3 * 11 + !tied);
    EXPECT_EQ(roles.at("model.embed_tokens.weight"), Role::kEmbedding);
    EXPECT_EQ(roles.at("model.layers.0.self_attn.q_proj.weight"), Role::kAttentionQ);
    EXPECT_EQ(roles.at("model.layers.0.self_attn.k_proj.weight"), Role::kAttentionK);
    EXPECT_EQ(roles.at("model.layers.0.self_attn.v_proj.weight"), Role::kAttentionV);
    EXPECT_EQ(roles.at("model.layers.2.self_attn.o_proj.weight"), Role::kAttentionO);
    EXPECT_EQ(roles.at("model.layers.2.mlp.down_proj.weight"), Role::kHiddenMatrix);
    EXPECT_EQ(roles.at("model.layers.0.input_layernorm.weight"), Role::kNorm);
    EXPECT_EQ(roles.at("model.layers.0.self_attn.q_norm.weight"), Role::kNorm);
    EXPECT_EQ(roles.contains("lm_head.weight"), !tied);
    if (!tied) {
      EXPECT_EQ(roles.at("lm_head.weight"), Role::kHead);
    }
  }
}

TEST(CausalLm, RefusesWhatItCannotCompute) {
  CausalLmConfig config = tiny_config();
  config.num_key_value_heads = 4;
  expect_says(message_of([&] { CausalLm model(config); }),
              "CausalLm: num_key_value_heads must divide num_attention_heads, 6, got 4");
  const auto model = tiny_model(tiny_config());
  const auto run = [&](const torch::Tensor& tokens, std::int64_t start) {
    return message_of([&] { model->hidden(tokens, torch::tensor({start})); });
  };
  expect_says(run(torch::tensor({{1, 23}}), 0), "tokens must be in [0, 23), got 23");
  expect_says(run(torch::tensor({{1, -1}}), 0), "tokens must be in [0, 23), got -1");
  expect_says(run(torch::tensor({{1, 2}}), 2),
              "starts must be in [0, 2), got 2 in row 0");
  expect_says(
      run(torch::zeros({1, 129}, torch::kInt64), 0),
      "must have at most 128 tokens, the model's max_position_embeddings, got 129");
  EXPECT_EQ(run(torch::zeros({1, 129}, torch::kInt64), 1), "");
}

}  // namespace
}  // namespace pion::lab
