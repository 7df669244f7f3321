// SPDX-License-Identifier: Apache-2.0
// Supervised fine-tuning and reinforcement learning on models of a few thousand weights.
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "lab/run/run.h"
#include "lab/tasks/answering.h"
#include "lab/tasks/micro_batch.h"
#include "lab/tasks/rlvr.h"
#include "lab/tasks/sft.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

// The tensors are tiny: a second thread costs more than it brings.
const bool one_thread = (torch::set_num_threads(1), true);

constexpr const char* kTiny = R"(
[data]
kinds = "d+d"
[model]
hidden_size = 16
layers = 1
heads = 2
kv_heads = 1
head_dim = 8
mlp_size = 16
context = 40
[eval]
problems = 8
max_new_tokens = 12
shown = 2
)";

Recipe recipe_of(const std::string& task, const TextPairs& flags = {}) {
  Recipe recipe = Recipe::parse("task = \"" + task + "\"\n" + kTiny, task);
  recipe.set_all(flags);
  return recipe;
}

Recipe sft(TextPairs flags = {}) {
  flags.insert(flags.begin(), {{"sft.updates", "6"}, {"sft.batch_size", "8"}});
  return recipe_of("sft", flags);
}

Recipe rlvr(TextPairs flags = {}) {
  flags.insert(flags.begin(), {{"rl.updates", "4"},
                               {"rl.prompts", "4"},
                               {"rl.samples", "4"},
                               {"rl.max_new_tokens", "8"},
                               {"rl.reward_format", "0.25"}});
  return recipe_of("rlvr", flags);
}

TensorMap weights_of(Task& task) {
  TensorMap weights;
  for (const auto& item : task.model().named_parameters())
    weights[item.key()] = item.value().detach().clone();
  return weights;
}

bool same_bits(const TensorMap& a, const TensorMap& b) {
  for (const auto& [name, tensor] : a)
    if (!torch::equal(tensor, b.at(name))) return false;
  return a.size() == b.size();
}

// What a checkpoint holds, handed from one experiment to another.
void hand_over(Experiment& from, Experiment& to) {
  TensorMap tensors;
  Json state;
  from.task->save(tensors, state);
  TensorMap kept;
  for (const auto& [name, tensor] : tensors) kept[name] = tensor.clone();
  const torch::NoGradGuard no_grad;
  auto target = to.task->model().named_parameters();
  for (const auto& item : from.task->model().named_parameters())
    target[item.key()].copy_(item.value());
  to.optimizer->load_state_tensors(from.optimizer->state_tensors());
  to.task->load(kept, Json::parse(state.dump()));
}

void expect_resumes(const Recipe& recipe) {
  Experiment whole = make_experiment(recipe), resumed = make_experiment(recipe);
  for (int i = 0; i < 2; ++i) whole.task->update(i, *whole.optimizer);
  hand_over(whole, resumed);
  Json a, b;
  for (int i = 2; i < 4; ++i) {
    a = whole.task->update(i, *whole.optimizer);
    b = resumed.task->update(i, *resumed.optimizer);
  }
  EXPECT_TRUE(same_bits(weights_of(*whole.task), weights_of(*resumed.task)));
  for (const char* name : {"loss", "answers", "examples", "reward_mean"})
    EXPECT_EQ(a.value(name, Json()), b.value(name, Json())) << name;
}

TEST(Sft, LearnsAFewProblemsByHeart) {
  Experiment e = make_experiment(sft({{"optimizer.matrices.lr", "0.02"},
                                      {"optimizer.rest.lr", "0.02"},
                                      {"optimizer.matrices.rule", "adamw"}}));
  const double before = e.task->evaluate()["held_out_loss"];
  double last = 0;
  for (int i = 0; i < 40; ++i) last = e.task->update(i, *e.optimizer)["loss"];
  // fresh weights of deviation 0.02 are near uniform: log of the vocabulary's size. The
  // form alone, which half of the tokens are, brings the loss below half of that.
  const double uniform =
      std::log(static_cast<double>(make_arithmetic({})->vocabulary().size()));
  EXPECT_NEAR(before, uniform, 0.05);
  EXPECT_LT(last, uniform / 2);
  EXPECT_LT(double(e.task->evaluate()["held_out_loss"]), uniform / 2);
}

TEST(Sft, MicroBatchesAddUpToTheBatch) {
  Experiment whole = make_experiment(sft()),
             parts = make_experiment(sft({{"sft.micro_batch_tokens", "40"}}));
  const Json a = whole.task->update(0, *whole.optimizer);
  const Json b = parts.task->update(0, *parts.optimizer);
  EXPECT_NEAR(double(a["loss"]), double(b["loss"]), 1e-5);
  // sums of about 10^3 terms in f32, in another order
  EXPECT_NEAR(double(a["gradient_norm"]), double(b["gradient_norm"]),
              1e-4 * double(a["gradient_norm"]));
}

TEST(Sft, ResumesInTheMiddleOfAnEpoch) { expect_resumes(sft()); }

TEST(Rlvr, ResumesInTheMiddleOfAnEpoch) {
  expect_resumes(rlvr());
  expect_resumes(rlvr({{"rl.method", "reinforce"}, {"rl.epochs", "2"}}));
}

TEST(Rlvr, EqualRewardsMoveNothing) {
  // an untrained model is never right, and form is not rewarded
  Experiment e = make_experiment(rlvr({{"rl.reward_format", "0"},
                                       {"optimizer.matrices.weight_decay", "0.1"},
                                       {"optimizer.rest.weight_decay", "0.1"}}));
  const TensorMap before = weights_of(*e.task);
  const Json metrics = e.task->update(0, *e.optimizer);
  ASSERT_EQ(double(metrics["reward_mean"]), 0.0);
  EXPECT_EQ(double(metrics["steps"]), 0.0);
  EXPECT_EQ(double(metrics["skipped_steps"]), 2.0);
  EXPECT_EQ(double(metrics["zero_spread_groups"]), 1.0);
  EXPECT_TRUE(same_bits(before, weights_of(*e.task)));
}

// A policy that knows the form, in a few steps of supervision; then RL moves it.
class TrainedRlvr : public testing::Test {
 protected:
  static Experiment after_sft(TextPairs flags) {
    Experiment teacher = make_experiment(sft({{"optimizer.matrices.lr", "0.02"},
                                              {"optimizer.rest.lr", "0.02"},
                                              {"optimizer.matrices.rule", "adamw"}}));
    for (int i = 0; i < 60; ++i) teacher.task->update(i, *teacher.optimizer);
    Experiment e = make_experiment(rlvr(std::move(flags)));
    const torch::NoGradGuard no_grad;
    auto target = e.task->model().named_parameters();
    for (const auto& item : teacher.task->model().named_parameters())
      target[item.key()].copy_(item.value());
    return e;
  }
};

TEST_F(TrainedRlvr, EveryMethodTakesStepsAndReports) {
  for (const char* method :
       {"reinforce", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "rloo",
        "grpo", "dr_grpo", "dapo", "gmpo", "minirl"}) {
    Experiment e = after_sft({{"rl.method", method},
                              {"rl.max_new_tokens", "14"},
                              {"rl.prompts", "8"},
                              {"eval.max_new_tokens", "14"}});
    const TensorMap before = weights_of(*e.task);
    const Json m = e.task->update(0, *e.optimizer);
    EXPECT_GT(double(m["steps"]), 0) << method << m.dump(1);
    EXPECT_FALSE(same_bits(before, weights_of(*e.task))) << method;
    for (const char* name :
         {"reward_mean", "accuracy", "format_rate", "right_unformatted_rate", "entropy",
          "kl_to_start", "kl_to_old", "answer_length", "truncated", "gradient_norm",
          "update_rms", "tokens_per_second", "seconds_generation", "seconds_backward",
          "loss"})
      EXPECT_TRUE(m.contains(name) && m[name].is_number() &&
                  std::isfinite(double(m[name])))
          << method << " " << name;
  }
}

TEST_F(TrainedRlvr, MicroBatchesAndOldLogprobsChangeRoundingOnly) {
  const TextPairs flags = {{"rl.max_new_tokens", "14"}, {"rl.prompts", "8"}};
  std::vector<TextPairs> others = {flags, flags};
  others[0].emplace_back("rl.micro_batch_tokens", "60");
  others[1].emplace_back("rl.old_logprobs", "training");
  Experiment plain = after_sft(flags);
  const Json a = plain.task->update(0, *plain.optimizer);
  ASSERT_GT(double(a["steps"]), 0);
  for (const TextPairs& other : others) {
    Experiment e = after_sft(other);
    const Json b = e.task->update(0, *e.optimizer);
    EXPECT_EQ(double(a["reward_mean"]), double(b["reward_mean"]));
    EXPECT_EQ(double(a["trained_answers"]), double(b["trained_answers"]));
    // log-probabilities differ by about 1e-6 and the second minibatch is after a step
    EXPECT_NEAR(double(a["gradient_norm"]), double(b["gradient_norm"]),
                1e-3 * double(a["gradient_norm"]));
    EXPECT_NEAR(double(a["loss"]), double(b["loss"]), 1e-4);
  }
}

TEST_F(TrainedRlvr, UnitRmsMovesHiddenMatricesByTheRate) {
  for (const char* rule : {"adamw", "muon", "pion"}) {
    Experiment e = after_sft({{"rl.unit_rms", "true"},
                              {"rl.minibatches", "1"},
                              {"rl.max_new_tokens", "14"},
                              {"rl.prompts", "8"},
                              {"optimizer.matrices.rule", rule},
                              {"optimizer.matrices.lr", "1e-3"}});
    const TensorMap before = weights_of(*e.task);
    const Json m = e.task->update(0, *e.optimizer);
    ASSERT_EQ(double(m["steps"]), 1.0);
    // the floor takes up to 1e-4 of a direction's norm 1; Pion's blocks may be empty
    const bool full = std::string(rule) != "pion";
    EXPECT_NEAR(double(m["update_rms"]), full ? 1e-3 : 0.0, full ? 1e-6 : 1.001e-3)
        << rule;
    for (const auto& [name, now] : weights_of(*e.task)) {
      if (name.find("_proj.weight") == std::string::npos) continue;
      const double rms = (now - before.at(name)).pow(2).mean().sqrt().item<double>();
      // weights of about 0.3 hold differences to 2^-25
      EXPECT_NEAR(rms, full ? 1e-3 : 0.0, full ? 1e-6 : 1.001e-3) << rule << name;
    }
  }
}

TEST_F(TrainedRlvr, AFrozenControlMovesTheRestAlone) {
  Experiment e = after_sft({{"rl.max_new_tokens", "14"},
                            {"rl.prompts", "8"},
                            {"optimizer.matrices.rule", "sgd"},
                            {"optimizer.matrices.lr", "0"},
                            {"optimizer.rest.lr", "1e-3"}});
  const TensorMap before = weights_of(*e.task);
  ASSERT_GT(double(e.task->update(0, *e.optimizer)["steps"]), 0);
  for (const auto& [name, now] : weights_of(*e.task)) {
    const bool hidden = name.find("_proj.weight") != std::string::npos;
    EXPECT_EQ(torch::equal(now, before.at(name)), hidden) << name;
  }
}

TEST_F(TrainedRlvr, SpectraMeasureAndChangeNothing) {
  const TextPairs flags = {{"rl.max_new_tokens", "14"},
                           {"rl.prompts", "8"},
                           {"eval.max_new_tokens", "14"},
                           {"rl.method", "reinforce"}};  // which has a moving baseline
  TextPairs on = flags;
  on.emplace_back("rl.spectra", "true");
  Experiment plain = after_sft(flags), measured = after_sft(on);
  EXPECT_FALSE(plain.task->evaluate().contains("signal_1"));
  const Json m = measured.task->evaluate();
  for (const char* name : {"signal_1", "signal_2_4", "signal_5_16"})
    EXPECT_TRUE(m.contains(name) && std::isfinite(double(m[name]))) << m.dump(1);
  EXPECT_EQ(m, measured.task->evaluate());
  plain.task->update(0, *plain.optimizer);
  measured.task->update(0, *measured.optimizer);
  EXPECT_TRUE(same_bits(weights_of(*plain.task), weights_of(*measured.task)));
}

TEST_F(TrainedRlvr, DynamicSamplingKeepsMixedGroupsAndStopsAtItsCap) {
  Experiment e = after_sft(
      {{"rl.method", "dapo"}, {"rl.refills", "2"}, {"rl.max_new_tokens", "14"}});
  const Json m = e.task->update(0, *e.optimizer);
  EXPECT_LE(int(m["refills"]), 2);
  const double asked = double(m["answers"]) / 4;  // groups of 4
  EXPECT_GE(asked, 4);
  EXPECT_LE(asked, 12);
  EXPECT_EQ(asked - double(m["rejected_groups"]) <= 4, true);
}

TEST_F(TrainedRlvr, AnswersBeforeAreTheStartPolicys) {
  Experiment e = after_sft({{"rl.max_new_tokens", "14"}});
  const Json sample = e.task->sample();
  ASSERT_EQ(sample["kind"], "answers");
  ASSERT_EQ(sample["items"].size(), 2u);
  for (const Json& item : sample["items"]) {
    EXPECT_FALSE(item["prompt"].get<std::string>().empty());
    // the start is the untrained model here
    EXPECT_NE(item["before"]["text"], item["after"]["text"]);
  }
}

TEST(Rlvr, WhatMakesNoSenseIsRefused) {
  const auto message = [](const TextPairs& flags) {
    return message_of([&] { make_experiment(rlvr(flags)); });
  };
  EXPECT_NE(
      message({{"rl.method", "gmpo"}, {"rl.aggregation", "token_mean"}}).find("gmpo"),
      std::string::npos);
  EXPECT_NE(message({{"rl.samples", "1"}}).find("compares answers"), std::string::npos);
  EXPECT_NE(message({{"rl.minibatches", "17"}}).find("prompts x samples = 16"),
            std::string::npos);
  EXPECT_NE(message({{"rl.old_logprobs", "generation"}, {"rl.top_k", "3"}})
                .find("another distribution"),
            std::string::npos);
  EXPECT_NE(message({{"rl.method", "minirl"}, {"rl.old_logprobs", "generation"}})
                .find("compares training and generation"),
            std::string::npos);
  EXPECT_NE(message({{"rl.max_new_tokens", "60"}}).find("context of 40"),
            std::string::npos);
  EXPECT_NE(message({{"rl.unit_rms", "true"}, {"optimizer.matrices.weight_decay", "0.1"}})
                .find("weight_decay must be 0"),
            std::string::npos);
  EXPECT_NE(message({{"model.folder", "x"}, {"model.start", "y"}}).find("exclude"),
            std::string::npos);
  EXPECT_NE(message({{"model.folder", "/nowhere"},
                     {"model.hidden_size", "128"},
                     {"model.layers", "2"}})
                .find("has no effect"),
            std::string::npos);
  EXPECT_NE(message({{"data.source", "/no/such/file"}, {"data.kinds", "dd?dd?dd"}})
                .find("does not exist"),
            std::string::npos);
  EXPECT_NE(message({{"rl.reward_correct", "0"}, {"rl.reward_format", "0"}})
                .find("nothing would be rewarded"),
            std::string::npos);
}

TEST(Rlvr, KeysWithoutEffectAreRefused) {
  const auto refusal = [](const TextPairs& flags) {
    return message_of([&] { make_experiment(rlvr(flags)); });
  };
  for (const char* kind : {"k1_in_reward", "k2", "k3", "low_var_kl"})
    expect_says(refusal({{"rl.kl", kind}}), "set rl.kl_coefficient");
  EXPECT_EQ(refusal({{"rl.kl", "k3"}, {"rl.kl_coefficient", "0"}}), "");  // of a grid
  EXPECT_EQ(refusal({{"rl.kl", "none"}}), "");
  expect_says(refusal({{"rl.refills", "5"}}), "rl.dynamic_sampling");
  EXPECT_EQ(refusal({{"rl.refills", "5"}, {"rl.dynamic_sampling", "true"}}), "");
}

// Before the start policy is trained for it.
TEST(Rlvr, AFolderAndAStartExcludeOneAnother) {
  Recipe recipe = Recipe::parse("task = \"rlvr\"\n", "r.toml");
  const TaskInfo& info = find_task("rlvr");
  recipe.set("model.start", "arithmetic_base");
  EXPECT_EQ(info.start(recipe), "arithmetic_base");
  recipe.set("model.folder", "q2");
  expect_says(message_of([&] { info.start(recipe); }), "exclude one another");
}

TEST(Rlvr, NonFiniteWeightsStopTheRunAndNameTheUpdate) {
  Experiment e = make_experiment(rlvr());
  {
    const torch::NoGradGuard no_grad;
    e.task->model().named_parameters()["model.layers.0.mlp.up_proj.weight"].fill_(NAN);
  }
  try {
    e.task->update(2, *e.optimizer);
    FAIL() << "must throw";
  } catch (const std::runtime_error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("update 3"), std::string::npos) << what;
    EXPECT_NE(what.find("layer"), std::string::npos) << what;
  }
}

TEST(Resume, RefusesOtherProblemsThanTheRunBeganWith) {
  for (const auto& make : {sft, rlvr}) {
    Experiment first = make_experiment(make({})),
               other = make_experiment(make({{"data.kinds", "d-d"}}));
    first.task->update(0, *first.optimizer);
    EXPECT_THROW(hand_over(first, other), std::invalid_argument);
  }
}

TEST(MicroBatches, KeepOrderAndBudget) {
  const std::vector<std::int64_t> lengths = {3, 4, 9, 1, 1, 12, 2};
  const auto parts = micro_batches(lengths, 8);
  ASSERT_EQ(parts.size(), 5u);
  EXPECT_EQ(parts[0], (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(parts[1], (std::vector<std::int64_t>{2}));  // longer than the budget: alone
  EXPECT_EQ(parts[2], (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(parts[3], (std::vector<std::int64_t>{5}));
  EXPECT_EQ(micro_batches(lengths, 0).size(), 1u);
  EXPECT_EQ(by_length(lengths), (std::vector<std::int64_t>{3, 4, 6, 0, 1, 2, 5}));
}

}  // namespace
}  // namespace pion::lab
