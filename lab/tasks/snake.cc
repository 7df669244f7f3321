// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/snake.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "lab/run/recipe_keys.h"

namespace pion::lab {
namespace {

// boards of evaluations: never trained on
constexpr std::uint64_t kEvaluationSeed = 0x5eed0001;

// Fills the actions of every environment from their observations.
using Policy = std::function<void(std::span<const float>, std::span<std::int64_t>)>;

// Plays until the first episode of every environment has ended.
SnakeScores play(Snake& environment, const Policy& policy) {
  const std::int64_t n = environment.environments();
  std::vector<float> observations(n * environment.observation_size());
  std::vector<std::int64_t> actions(n);
  std::vector<bool> finished(n);
  SnakeScores sum;
  for (std::int64_t left = n; left > 0;) {
    environment.observe(observations);
    policy(observations, actions);
    const StepResult& result = environment.step(actions);
    for (std::int64_t e = 0; e < n; ++e) {
      if (finished[e] || !result.done(e)) continue;
      finished[e] = true;
      --left;
      sum.score_mean += static_cast<double>(result.scores[e]);
      sum.length_mean += static_cast<double>(result.episode_lengths[e]);
      sum.win_rate += result.wins[e];
      sum.score_max = std::max(sum.score_max, result.scores[e]);
    }
  }
  const auto count = static_cast<double>(n);
  return {sum.score_mean / count, sum.length_mean / count, sum.win_rate / count,
          sum.score_max};
}

TransformerPolicyOptions fitted(TransformerPolicyOptions model,
                                const Snake& environment) {
  model.height = environment.options().height;
  model.width = environment.options().width;
  model.planes = environment.planes();
  model.actions = environment.actions();
  return model;
}

SnakeOptions seeded(SnakeOptions environment, std::uint64_t seed) {
  environment.seed = seed;
  return environment;
}

PpoOptions seeded(PpoOptions ppo, std::uint64_t seed) {
  ppo.seed = seed;
  return ppo;
}

Json frame_json(const SnakeFrame& frame) {
  return {{"snake", frame.snake}, {"food", frame.food}, {"score", frame.score}};
}

}  // namespace

SnakeTask::SnakeTask(const SnakeTaskOptions& options)
    : options_(options),
      environment_(seeded(options.environment, options.seed)),
      model_((torch::manual_seed(options.seed),
              std::make_shared<TransformerPolicy>(fitted(options.model, environment_)))),
      ppo_(*model_, environment_, seeded(options.ppo, options.seed)) {
  if (options.eval_episodes < 1) {
    throw std::invalid_argument("snake: eval_episodes must be >= 1, got " +
                                std::to_string(options.eval_episodes));
  }
  evaluation_environment(1);  // its threads come on top: now, not in the first evaluation
}

AttentionShape SnakeTask::attention_shape() const {
  const TransformerPolicyOptions& o = model_->options();
  return {
      .heads = o.num_heads, .kv_heads = o.num_heads, .head_dim = o.d_model / o.num_heads};
}

// The first and the last layers are no hidden matrices.
RoutingOptions SnakeTask::routing_options(const Recipe& recipe) const {
  RoutingOptions options = Task::routing_options(recipe);
  for (const char* name :
       {"patch_projection.weight", "policy_head.weight", "value_head.weight"}) {
    options.overrides.emplace_back(name, "rest");
  }
  return options;
}

Json SnakeTask::update(std::int64_t index, Optimizer& optimizer) {
  return ppo_.update(index, optimizer,
                     [&](double factor) { optimizer.set_lr_factor(factor); });
}

void SnakeTask::greedy(std::span<const float> observations,
                       std::span<std::int64_t> actions) {
  const torch::NoGradGuard no_grad;
  const auto n = static_cast<std::int64_t>(actions.size());
  // from_blob takes no const pointer; forward only reads
  const torch::Tensor seen = torch::from_blob(const_cast<float*>(observations.data()),
                                              {n, environment_.observation_size()});
  const torch::Tensor best = model_->forward(seen).logits.argmax(-1);
  std::copy_n(best.data_ptr<std::int64_t>(), n, actions.data());
}

Snake SnakeTask::evaluation_environment(std::int64_t episodes) const {
  SnakeOptions options = seeded(options_.environment, kEvaluationSeed);
  options.environments = episodes;
  return Snake(options);
}

Json SnakeTask::evaluate() {
  if (random_score_mean_ < 0) {
    Snake environment = evaluation_environment(options_.eval_episodes);
    at::Generator generator = at::detail::createCPUGenerator(kEvaluationSeed);
    const SnakeScores random =
        play(environment, [&](auto, std::span<std::int64_t> actions) {
          const auto n = static_cast<std::int64_t>(actions.size());
          const torch::Tensor drawn = torch::randint(4, {n}, generator, torch::kInt64);
          std::copy_n(drawn.data_ptr<std::int64_t>(), n, actions.data());
        });
    random_score_mean_ = random.score_mean;
  }
  Snake environment = evaluation_environment(options_.eval_episodes);
  const SnakeScores scores =
      play(environment, [&](auto seen, auto actions) { greedy(seen, actions); });
  return {{"score_mean", scores.score_mean},
          {"score_max", scores.score_max},
          {"length_mean", scores.length_mean},
          {"win_rate", scores.win_rate},
          {"random_score_mean", random_score_mean_}};
}

Json SnakeTask::sample() {
  Snake environment = evaluation_environment(1);
  Json frames = Json::array();
  SnakeFrame last;
  const SnakeScores scores = play(environment, [&](auto seen, auto actions) {
    last = environment.frame(0);
    frames.push_back(frame_json(last));
    greedy(seen, actions);
  });
  if (scores.win_rate > 0) {  // its board is gone: the full one follows from the last
    last.snake.insert(last.snake.begin(), last.food);
    frames.push_back(frame_json({last.snake, {-1, -1}, last.score + 1}));
  }
  return {{"kind", "snake_game"},
          {"board", {options_.environment.height, options_.environment.width}},
          {"frames", frames}};
}

namespace {

Schema board_and_model_keys(const SnakeTaskOptions& o) {
  const SnakeOptions& e = o.environment;
  const TransformerPolicyOptions& m = o.model;
  return {
      whole("total_timesteps", o.ppo.total_timesteps,
            "steps of all environments together", 1),
      whole("eval_episodes", o.eval_episodes, "greedy games of one evaluation", 1,
            1 << 20),
      whole("env.height", e.height, "cells", 2, 64),
      whole("env.width", e.width, "cells", 2, 64),
      whole("env.environments", e.environments, "boards that step together", 1, 1 << 20),
      whole("env.threads", e.threads, "that step the boards; changes no result", 1, 1024),
      whole("env.start_length", e.start_length, "cells of a new snake", 1, 64),
      whole("env.starvation_steps", e.starvation_steps,
            "steps without food that end a game; 0: twice the cells", 0, 1 << 30),
      real("env.food_reward", e.food_reward, "for eating", -1e6, 1e6),
      real("env.death_reward", e.death_reward, "for hitting a wall or the body", -1e6,
           1e6),
      real("env.win_reward", e.win_reward, "for filling the board", -1e6, 1e6),
      real("env.step_reward", e.step_reward, "for every step", -1e6, 1e6),
      real("env.approach_reward", e.approach_reward, "for every cell nearer to the food",
           -1e6, 1e6),
      flag("env.hints", e.hints,
           "show blocked directions and the way to the food on the head"),
      whole("model.patch", m.patch, "side in cells of the patch that is one token", 1,
            64),
      whole("model.d_model", m.d_model, "width of a token", 1, 1 << 16),
      whole("model.num_layers", m.num_layers, "transformer layers", 1, 1024),
      whole("model.num_heads", m.num_heads, "attention heads; must divide d_model", 1,
            1 << 16),
      real("model.mlp_ratio", m.mlp_ratio, "hidden width of the MLP over d_model", 1e-6,
           64),
  };
}

Schema ppo_keys(const PpoOptions& p) {
  return {
      whole("ppo.horizon", p.horizon, "steps per environment and update", 1),
      whole("ppo.epochs", p.epochs, "passes over the steps of one update", 1),
      whole("ppo.minibatches", p.minibatches,
            "per pass; must divide environments horizon", 1),
      real("ppo.gamma", p.gamma, "discount", 0, 1),
      real("ppo.gae_lambda", p.gae_lambda, "of the advantage estimator", 0, 1),
      real("ppo.clip", p.clip, "of the probability ratio and of the value", 1e-9, 1e9),
      flag("ppo.clip_value", p.clip_value, "clip the value loss"),
      flag("ppo.normalize_advantages", p.normalize_advantages, "within each mini-batch"),
      real("ppo.value_coefficient", p.value_coefficient, "weight of the value loss", 0,
           1e9),
      real("ppo.entropy_coefficient", p.entropy_coefficient, "weight of the entropy", 0,
           1e9),
      real("ppo.max_grad_norm", p.max_grad_norm, "global gradient norm; 0: not clipped",
           0, 1e9),
      flag("ppo.anneal_lr", p.anneal_lr,
           "learning rates fall linearly to 0 over the run"),
      real("ppo.target_kl", p.target_kl, "ends the passes beyond this KL; 0: never", 0,
           1e9),
      flag("ppo.bootstrap_truncated", p.bootstrap_truncated,
           "starving is no end of the return"),
  };
}

Schema snake_schema() {
  const SnakeTaskOptions defaults;
  Schema schema = board_and_model_keys(defaults);
  for (Key& key : ppo_keys(defaults.ppo)) schema.push_back(std::move(key));
  return schema;
}

SnakeTaskOptions options_from(const Recipe& r) {
  SnakeTaskOptions o;
  o.seed = static_cast<std::uint64_t>(r.integer("seed"));
  o.eval_episodes = r.integer("eval_episodes");
  o.environment = {
      .height = static_cast<int>(r.integer("env.height")),
      .width = static_cast<int>(r.integer("env.width")),
      .environments = r.integer("env.environments"),
      .threads = static_cast<int>(r.integer("env.threads")),
      .start_length = static_cast<int>(r.integer("env.start_length")),
      .starvation_steps = static_cast<int>(r.integer("env.starvation_steps")),
      .food_reward = r.number("env.food_reward"),
      .death_reward = r.number("env.death_reward"),
      .win_reward = r.number("env.win_reward"),
      .step_reward = r.number("env.step_reward"),
      .approach_reward = r.number("env.approach_reward"),
      .hints = r.flag("env.hints")};
  o.model = {.patch = r.integer("model.patch"),
             .d_model = r.integer("model.d_model"),
             .num_layers = r.integer("model.num_layers"),
             .num_heads = r.integer("model.num_heads"),
             .mlp_ratio = r.number("model.mlp_ratio")};
  o.ppo = {.total_timesteps = r.integer("total_timesteps"),
           .horizon = r.integer("ppo.horizon"),
           .epochs = r.integer("ppo.epochs"),
           .minibatches = r.integer("ppo.minibatches"),
           .gamma = r.number("ppo.gamma"),
           .gae_lambda = r.number("ppo.gae_lambda"),
           .clip = r.number("ppo.clip"),
           .clip_value = r.flag("ppo.clip_value"),
           .normalize_advantages = r.flag("ppo.normalize_advantages"),
           .value_coefficient = r.number("ppo.value_coefficient"),
           .entropy_coefficient = r.number("ppo.entropy_coefficient"),
           .max_grad_norm = r.number("ppo.max_grad_norm"),
           .anneal_lr = r.flag("ppo.anneal_lr"),
           .target_kl = r.number("ppo.target_kl"),
           .bootstrap_truncated = r.flag("ppo.bootstrap_truncated")};
  return o;
}

}  // namespace

TaskInfo snake_info() {
  TaskInfo info;
  info.name = "snake";
  info.description = "PPO teaches a transformer to play Snake";
  info.schema = snake_schema();
  info.score = "score_mean";
  info.higher_is_better = true;
  info.curve = "score_mean";
  info.progress = "env_steps";
  info.make = [](const Recipe& r) -> std::unique_ptr<Task> {
    return std::make_unique<SnakeTask>(options_from(r));
  };
  return info;
}

}  // namespace pion::lab
