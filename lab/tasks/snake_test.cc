// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/snake.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace pion::lab {
namespace {

SnakeTaskOptions small(std::uint64_t seed = 1) {
  return {.environment = {.height = 4, .width = 4, .environments = 8, .hints = true},
          .model = {.patch = 2, .d_model = 16, .num_layers = 2, .num_heads = 2},
          .ppo = {.total_timesteps = 8 * 16 * 6, .horizon = 16, .epochs = 2},
          .eval_episodes = 50,
          .seed = seed};
}

RoutingOptions routing_for(const SnakeTask& task, const Rule& rule) {
  const Recipe recipe =
      Recipe::parse("task = \"snake\"\n[model]\nd_model = 16\n", "test");
  RoutingOptions options = task.routing_options(recipe);
  options.matrices = rule;
  return options;
}

// A task, its optimizer and what run loops do with them.
struct Session {
  SnakeTask task;
  std::unique_ptr<Optimizer> optimizer;

  explicit Session(const Rule& rule, const SnakeTaskOptions& options = small())
      : task(options),
        optimizer(
            make_optimizer(task.model(), route(task.model(), routing_for(task, rule)))) {}

  Json update(std::int64_t index) {
    Json metrics = task.update(index, *optimizer);
    metrics.erase("steps_per_second");  // a time
    return metrics;
  }
  torch::Tensor weights() {
    std::vector<torch::Tensor> all;
    for (const auto& p : task.model().parameters()) all.push_back(p.detach().flatten());
    return torch::cat(all);
  }
};

std::vector<Rule> rules() {
  return {make_rule("adamw"), make_rule("muon"), make_rule("pion")};
}

TEST(SnakeTask, HiddenMatricesTakeTheMatrixRuleAndAttentionGoesByHeads) {
  SnakeTask task(small());
  const Routing routing = route(task.model(), routing_for(task, PionRule{}));
  std::int64_t matrices = 0;
  for (const Route& r : routing.routes) {
    const std::string& name = r.parameter.name;
    const bool hidden = name.find("_proj.weight") != std::string::npos;
    EXPECT_EQ(is_matrix_rule(r.rule), hidden) << name;
    matrices += hidden;
    if (name.find("attention.") != std::string::npos && hidden) {
      EXPECT_EQ(r.heads.heads, std::vector<std::int64_t>{2}) << name;
      EXPECT_EQ(r.heads.axis, name.find("o_proj") != std::string::npos ? 1 : 0) << name;
    }
  }
  EXPECT_EQ(matrices, 2 * 6) << "q, k, v, o, up, down in two layers";
}

TEST(SnakeTask, ALoadedRunContinuesBitForBitUnderEveryRule) {
  for (const Rule& rule : rules()) {
    Session whole(rule), resumed(rule);
    for (int i = 0; i < 3; ++i) whole.update(i);
    TensorMap tensors;
    Json state = Json::object();
    whole.task.save(tensors, state);
    resumed.task.load(tensors, Json::parse(state.dump()));
    resumed.optimizer->load_state_tensors(whole.optimizer->state_tensors());
    {
      const torch::NoGradGuard no_grad;
      const auto from = whole.task.model().parameters(),
                 to = resumed.task.model().parameters();
      for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
    }
    for (int i = 3; i < 6; ++i)
      EXPECT_EQ(whole.update(i), resumed.update(i)) << rule_name(rule);
    EXPECT_TRUE(torch::equal(whole.weights(), resumed.weights())) << rule_name(rule);
  }
}

TEST(SnakeTask, EvaluationDoesNotDisturbTraining) {
  Session quiet(make_rule("muon")), watched(make_rule("muon"));
  for (int i = 0; i < 3; ++i) {
    watched.task.evaluate();
    watched.task.sample();
    EXPECT_EQ(quiet.update(i), watched.update(i));
  }
  EXPECT_TRUE(torch::equal(quiet.weights(), watched.weights()));
  EXPECT_EQ(watched.task.evaluate(), watched.task.evaluate());
}

TEST(SnakeTask, TheRandomReferenceBelongsToTheBoardAndNotToTheSeed) {
  SnakeTaskOptions options = small(1), other = small(2);
  options.environment.height = options.environment.width = 6;
  other.environment = options.environment;
  options.eval_episodes = other.eval_episodes = 2000;
  const double random = SnakeTask(options).evaluate()["random_score_mean"];
  EXPECT_EQ(random, SnakeTask(other).evaluate()["random_score_mean"]);
  // snake_test measures 0.172 on 6 x 6; scores have a deviation below 0.6: 5 sigma of
  // 2000
  EXPECT_NEAR(random, 0.172, 5 * 0.6 / std::sqrt(2000.0));
}

TEST(SnakeTask, TheSampleIsAGameFromItsStartToItsEnd) {
  SnakeTask task(small());
  const Json sample = task.sample();
  EXPECT_EQ(sample["kind"], "snake_game");
  EXPECT_EQ(sample["board"], Json({4, 4}));
  const Json& frames = sample["frames"];
  ASSERT_FALSE(frames.empty());
  EXPECT_EQ(frames[0]["score"], 0);
  EXPECT_EQ(frames[0]["snake"].size(), 2u);
  for (std::size_t i = 1; i < frames.size(); ++i) {
    const Json &now = frames[i]["snake"][0], &before = frames[i - 1]["snake"][0];
    EXPECT_EQ(std::abs(now[0].get<int>() - before[0].get<int>()) +
                  std::abs(now[1].get<int>() - before[1].get<int>()),
              1)
        << "the head makes one step a frame, frame " << i;
    EXPECT_EQ(frames[i]["snake"].size(), 2 + frames[i]["score"].get<std::size_t>());
  }
}

TEST(SnakeTask, TheLearningRateFactorIsSetOnlyWhenAnnealing) {
  Session annealed(make_rule("adamw"));
  annealed.update(3);
  EXPECT_EQ(annealed.optimizer->lr_factor(), 0.5) << "update 3 of 6";
  SnakeTaskOptions constant = small();
  constant.ppo.anneal_lr = false;
  Session untouched(make_rule("adamw"), constant);
  untouched.optimizer->set_lr_factor(0.3);
  untouched.update(3);
  EXPECT_EQ(untouched.optimizer->lr_factor(), 0.3);
}

TEST(SnakeTask, TheRecipeMakesTheTask) {
  const Recipe recipe = Recipe::load("snake");
  const std::unique_ptr<Task> task = find_task("snake").make(recipe);
  EXPECT_EQ(task->updates(),
            recipe.integer("total_timesteps") /
                (recipe.integer("env.environments") * recipe.integer("ppo.horizon")));
  EXPECT_EQ(task->attention_shape().heads, recipe.integer("model.num_heads"));
  Recipe wrong = recipe;
  wrong.set("model.num_heads", "5");
  EXPECT_THROW(find_task("snake").make(wrong), std::invalid_argument);
  EXPECT_THROW(wrong.set("ppo.horizonn", "5"), std::invalid_argument);
}

}  // namespace
}  // namespace pion::lab
