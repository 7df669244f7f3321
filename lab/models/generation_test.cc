// SPDX-License-Identifier: Apache-2.0
#include "lab/models/generation.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "lab/models/causal_lm_tiny_test.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using Tokens = std::vector<std::int64_t>;

// as in causal_lm_test.cc, and log-softmax
constexpr double kLogprobTolerance = 4e-5;

at::Generator random(std::uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

Tokens answer(const Generation& g, std::int64_t row) {
  Tokens tokens;
  for (std::int64_t t = 0; t < g.mask.size(1) && g.mask[row][t].item<bool>(); ++t)
    tokens.push_back(g.tokens[row][g.prompt_length + t].item<std::int64_t>());
  return tokens;
}

// Greedy by the whole forward pass for every token.
Tokens greedy_without_cache(CausalLm& model, Tokens tokens, std::int64_t count) {
  const torch::NoGradGuard no_gradients;
  Tokens made;
  for (std::int64_t i = 0; i < count; ++i) {
    const torch::Tensor hidden =
        model.hidden(torch::tensor(tokens).unsqueeze(0), torch::tensor({0}));
    made.push_back(model.logits(hidden)[0][-1].argmax().item<std::int64_t>());
    tokens.push_back(made.back());
  }
  return made;
}

TEST(Generate, GreedyWithTheCacheIsGreedyWithout) {
  for (const auto architecture :
       {LmArchitecture::kQwen2, LmArchitecture::kQwen3, LmArchitecture::kLlama}) {
    const auto model = tiny_model(tiny_config(architecture));
    at::Generator generator = random(1);
    const at::Generator before = generator.clone();
    const std::vector<Tokens> prompts = {{1, 2, 3, 4, 5, 6, 7}, {8}, {9, 10}};
    const Generation g =
        generate(*model, prompts, 2, {.max_new_tokens = 40, .temperature = 0}, generator);
    EXPECT_EQ(g.prompt_length, 7);
    EXPECT_EQ(g.tokens.sizes(), torch::IntArrayRef({6, 47}));
    EXPECT_TRUE(torch::equal(g.starts, torch::tensor({0, 0, 6, 6, 5, 5})));
    EXPECT_TRUE(g.truncated.all().item<bool>());
    for (std::int64_t row = 0; row < 6; ++row)
      EXPECT_EQ(answer(g, row), greedy_without_cache(*model, prompts[row / 2], 40))
          << row;
    EXPECT_TRUE(torch::equal(generator.get_state(), before.get_state()));
  }
}

class Logprobs : public testing::TestWithParam<LmArchitecture> {};

TEST_P(Logprobs, OfSamplesAreThoseOfTheForwardPass) {
  for (const double temperature : {1.0, 0.6}) {
    const auto model = tiny_model(tiny_config(GetParam()));
    at::Generator generator = random(2);
    const Generation g = generate(
        *model, {{1, 2, 3}, {4}, {5, 6, 7, 8, 9}}, 5,
        {.max_new_tokens = 20, .temperature = temperature, .stop_tokens = {0, 3}},
        generator);
    torch::Tensor entropy;
    const torch::Tensor rows = torch::tensor({14, 0, 1, 2, 7, 3});
    const torch::NoGradGuard no_gradients;
    const torch::Tensor found = answer_logprobs(*model, g, rows, temperature, &entropy);
    EXPECT_LE((found - g.logprobs.index_select(0, rows)).abs().max().item<double>(),
              kLogprobTolerance);
    // the definition: the whole row, no packing
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
      const auto row = rows[i].item<std::int64_t>();
      const auto start = g.starts[row].item<std::int64_t>();
      const Tokens own = answer(g, row);
      const auto length = static_cast<std::int64_t>(own.size());
      const torch::Tensor line =
          g.tokens[row].narrow(0, start, g.prompt_length - start + length);
      const torch::Tensor hidden =
          model->hidden(line.unsqueeze(0), torch::tensor({0}))[0];
      const torch::Tensor all =
          (model->logits(hidden).to(torch::kFloat64) / temperature).log_softmax(-1);
      for (std::int64_t t = 0; t < g.mask.size(1); ++t) {
        if (t >= length) {
          EXPECT_EQ(found[i][t].item<double>(), 0);
          EXPECT_EQ(entropy[i][t].item<double>(), 0);
          continue;
        }
        const torch::Tensor p = all[g.prompt_length - start - 1 + t];
        EXPECT_NEAR(found[i][t].item<double>(), p[own[t]].item<double>(),
                    kLogprobTolerance);
        EXPECT_NEAR(entropy[i][t].item<double>(), -(p.exp() * p).sum().item<double>(),
                    kLogprobTolerance);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Logprobs,
                         testing::Values(LmArchitecture::kQwen2, LmArchitecture::kQwen3,
                                         LmArchitecture::kLlama));

TEST(AnswerLogprobs, GradientIsThatOfTheWholeForwardPass) {
  for (const bool tied : {false, true}) {
    CausalLmConfig config = tiny_config();
    config.tie_word_embeddings = tied;
    const auto model = tiny_model(config);
    at::Generator generator = random(3);
    const Generation g =
        generate(*model, {{1, 2, 3}, {4}}, 3,
                 {.max_new_tokens = 9, .stop_tokens = {0, 1}}, generator);
    const torch::Tensor weights = torch::randn(g.mask.sizes()) * g.mask;
    const double temperature = 0.8;
    model->zero_grad();
    (answer_logprobs(*model, g, torch::arange(6), temperature) * weights)
        .sum()
        .backward();
    std::map<std::string, torch::Tensor> packed;
    for (const auto& item : model->named_parameters())
      packed[item.key()] = item.value().grad().clone();
    model->zero_grad();
    const std::int64_t p = g.prompt_length, t = g.mask.size(1);
    const torch::Tensor logits =
        model->logits(model->hidden(g.tokens, g.starts)).narrow(1, p - 1, t) /
        temperature;
    const torch::Tensor all = logits.log_softmax(-1)
                                  .gather(2, g.tokens.narrow(1, p, t).unsqueeze(2))
                                  .squeeze(2);
    (all * weights).sum().backward();
    for (const auto& item : model->named_parameters()) {
      const torch::Tensor expected = item.value().grad();
      // both are f32 sums over the same 40 positions, in different order
      EXPECT_LE((packed[item.key()] - expected).norm().item<double>(),
                1e-5 * expected.norm().item<double>() + 1e-6)
          << item.key();
    }
  }
}

TEST(AnswerLogprobs, GivenAnswersNeedNoGeneration) {
  const auto model = tiny_model(tiny_config());
  const std::vector<Tokens> prompts = {{1, 2}, {3}}, answers = {{4}, {5, 6, 7}};
  const Generation g = given_answers(prompts, answers, 9);
  EXPECT_TRUE(torch::equal(g.tokens, torch::tensor({{1, 2, 4, 9, 9}, {9, 3, 5, 6, 7}})));
  const torch::NoGradGuard no_gradients;
  const torch::Tensor found = answer_logprobs(*model, g, torch::arange(2), 1.0);
  const torch::Tensor hidden = model->hidden(torch::tensor({{1, 2}}), torch::tensor({0}));
  EXPECT_NEAR(found[0][0].item<double>(),
              model->logits(hidden)[0][1].log_softmax(-1)[4].item<double>(),
              kLogprobTolerance);
  EXPECT_EQ(found[0][1].item<double>(), 0);
  expect_says(message_of([&] { given_answers(prompts, {{answers[0]}}); }),
              "given_answers: there must be one answer to each prompt, got 1 to 2");
}

TEST(Generate, StopTokensEndAnAnswerAndAreItsLast) {
  const auto model = tiny_model(tiny_config());
  at::Generator generator = random(4);
  const SamplingOptions options{.max_new_tokens = 30, .stop_tokens = {2, 5, 7}};
  const Generation g = generate(*model, {{1}, {3, 4}}, 50, options, generator);
  std::int64_t longest = 0, cut = 0;
  for (std::int64_t row = 0; row < 100; ++row) {
    const Tokens own = answer(g, row);
    longest = std::max<std::int64_t>(longest, std::ssize(own));
    for (std::size_t t = 0; t < own.size(); ++t) {
      const bool stop = own[t] == 2 || own[t] == 5 || own[t] == 7;
      if (t + 1 < own.size()) {
        EXPECT_FALSE(stop) << row;
      } else {
        EXPECT_NE(stop, g.truncated[row].item<bool>()) << row;
      }
    }
    cut += g.truncated[row].item<bool>();
    EXPECT_EQ(g.mask[row].sum().item<std::int64_t>(), std::ssize(own));
    // padding behind the answer: the first stop token, since the config names none
    for (std::int64_t t = std::ssize(own); t < g.mask.size(1); ++t)
      EXPECT_EQ(g.tokens[row][g.prompt_length + t].item<std::int64_t>(), 2);
  }
  EXPECT_EQ(g.mask.size(1), longest);
  EXPECT_LT(cut, 100);
}

TEST(Generate, IsTheSameAgainAndARowKeepsItsNumbers) {
  const auto model = tiny_model(tiny_config());
  const SamplingOptions options{.max_new_tokens = 12, .top_k = 5, .stop_tokens = {2}};
  const auto run = [&](std::vector<Tokens> prompts) {
    at::Generator generator = random(5);
    return generate(*model, prompts, 4, options, generator);
  };
  const Generation a = run({{1, 2}, {3}}), b = run({{1, 2}, {3}});
  EXPECT_TRUE(torch::equal(a.tokens, b.tokens));
  EXPECT_TRUE(torch::equal(a.logprobs, b.logprobs));
  // other prompts behind: the first rows draw as before
  const Generation more = run({{1, 2}, {3}, {4, 5, 6}, {7}});
  for (std::int64_t row = 0; row < 8; ++row) EXPECT_EQ(answer(more, row), answer(a, row));
  // rows of one prompt do not draw alike
  EXPECT_NE(answer(a, 0), answer(a, 1));
}

// 4000 first tokens against the model's own distribution: chi-square with 22 degrees of
// freedom is above 56 once in 10^4 seeds; the seed is fixed.
TEST(Generate, SamplesFollowTheModel) {
  const auto model = tiny_model(tiny_config());
  at::Generator generator = random(6);
  const Generation g = generate(*model, {{1, 2}}, 4000,
                                {.max_new_tokens = 1, .temperature = 2}, generator);
  const torch::NoGradGuard no_gradients;
  const torch::Tensor hidden = model->hidden(torch::tensor({{1, 2}}), torch::tensor({0}));
  const torch::Tensor p = (model->logits(hidden)[0][1] / 2).softmax(-1);
  const torch::Tensor counts = torch::bincount(g.tokens.select(1, 2), {}, 23);
  const double chi = ((counts - 4000 * p).square() / (4000 * p)).sum().item<double>();
  EXPECT_LT(chi, 56);
}

TEST(Generate, NamesTheLayerWhereValuesCeaseToBeFinite) {
  struct Case {
    const char* parameter;
    const char* place;
  };
  for (const Case& one :
       {Case{"model.embed_tokens.weight", "the embedding"},
        Case{"model.layers.1.self_attn.v_proj.weight", "layer 1, attention"},
        Case{"model.layers.2.mlp.up_proj.weight", "layer 2, MLP"},
        Case{"model.norm.weight", "the last norm"}, Case{"lm_head.weight", "the head"}}) {
    const auto model = tiny_model(tiny_config());
    {
      const torch::NoGradGuard no_gradients;
      model->named_parameters()[one.parameter].fill_(
          std::numeric_limits<float>::quiet_NaN());
    }
    at::Generator generator = random(7);
    std::string message;
    try {
      generate(*model, {{1, 2}}, 1, {}, generator);
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    expect_says(message,
                "generate: logits must be finite, got NaN or infinity at new "
                "token 0 of row 0");
    expect_says(message, std::string("is in ") + one.place);
  }
}

TEST(Generate, Bfloat16IsCloseToTheForwardPass) {
  CausalLmConfig config = tiny_config(LmArchitecture::kQwen3);
  config.dtype = "bfloat16";
  const auto model = tiny_model(config);
  at::Generator generator = random(8);
  const Generation g =
      generate(*model, {{1, 2, 3}, {4}}, 4, {.max_new_tokens = 10}, generator);
  const torch::NoGradGuard no_gradients;
  const torch::Tensor found = answer_logprobs(*model, g, torch::arange(8), 1.0);
  // logits of size 8 have steps of 2^-5 in bf16; three layers add up a few
  EXPECT_LE((found - g.logprobs).abs().max().item<double>(), 8 * 0x1p-5);
}

TEST(Generate, RefusesBadArguments) {
  const auto model = tiny_model(tiny_config());
  const auto message = [&](std::vector<Tokens> prompts, SamplingOptions options,
                           std::int64_t samples = 1) {
    at::Generator generator = random(9);
    return message_of([&] { generate(*model, prompts, samples, options, generator); });
  };
  expect_says(message({}, {}), "generate: there must be a prompt, got none");
  expect_says(message({{1}, {}}, {}), "prompt 1 must have a token, got none");
  expect_says(message({{1, 23}}, {}), "prompt 0: tokens must be in [0, 23), got 23");
  expect_says(
      message({Tokens(114, 1)}, {.max_new_tokens = 15}),
      "at most 128 tokens together, the model's max_position_embeddings, got 114 + 15");
  EXPECT_EQ(message({Tokens(114, 1)}, {.max_new_tokens = 14}), "");
  expect_says(message({{1}}, {.max_new_tokens = 0}), "max_new_tokens must be at least 1");
  expect_says(message({{1}}, {.temperature = -1}), "temperature must be at least 0");
  expect_says(message({{1}}, {.temperature = std::nan("")}), "temperature");
  expect_says(message({{1}}, {.top_p = 0}), "top_p must be in (0, 1]");
  expect_says(message({{1}}, {.top_k = -1}), "top_k must be at least 0");
  expect_says(message({{1}}, {.stop_tokens = {23}}), "stop tokens must be in [0, 23)");
  expect_says(message({{1}}, {}, 0), "samples must be at least 1");
  at::Generator generator = random(9);
  const Generation g = generate(*model, {{1}}, 1, {.max_new_tokens = 2}, generator);
  expect_says(message_of([&] { answer_logprobs(*model, g, torch::tensor({1}), 1.0); }),
              "answer_logprobs: rows must be in [0, 1)");
  expect_says(message_of([&] { answer_logprobs(*model, g, torch::tensor({0}), 0.0); }),
              "temperature must be above 0, got 0");
}

}  // namespace
}  // namespace pion::lab
