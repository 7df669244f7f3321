// SPDX-License-Identifier: Apache-2.0
// Read from top to bottom: roll-out, advantages, mini-batches, loss, update, checkpoint.
#include "lab/algorithms/ppo.h"

#include <ATen/CPUGeneratorImpl.h>

#include <chrono>
#include <cmath>
#include <stdexcept>

#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

// finished episodes that the means are taken over
constexpr std::size_t kEpisodeWindow = 100;

[[noreturn]] void refuse(const std::string& what, double got) {
  throw std::invalid_argument("Ppo: " + what + ", got " + nlohmann::json(got).dump());
}

void check_options(const PpoOptions& o, std::int64_t environments) {
  if (o.horizon < 1) refuse("horizon must be >= 1", static_cast<double>(o.horizon));
  if (o.epochs < 1) refuse("epochs must be >= 1", static_cast<double>(o.epochs));
  const std::int64_t batch = environments * o.horizon;
  if (o.minibatches < 1 || batch % o.minibatches != 0) {
    refuse(
        "minibatches must divide environments times horizon = " + std::to_string(batch),
        static_cast<double>(o.minibatches));
  }
  if (o.total_timesteps < batch) {
    refuse("total_timesteps must be at least environments times horizon = " +
               std::to_string(batch),
           static_cast<double>(o.total_timesteps));
  }
  if (!(o.gamma >= 0 && o.gamma <= 1)) refuse("gamma must be in [0, 1]", o.gamma);
  if (!(o.gae_lambda >= 0 && o.gae_lambda <= 1)) {
    refuse("gae_lambda must be in [0, 1]", o.gae_lambda);
  }
  if (!(o.clip > 0)) refuse("clip must be > 0", o.clip);
  if (!(o.value_coefficient >= 0))
    refuse("value_coefficient must be >= 0", o.value_coefficient);
  if (!(o.entropy_coefficient >= 0)) {
    refuse("entropy_coefficient must be >= 0", o.entropy_coefficient);
  }
  if (!(o.max_grad_norm >= 0)) refuse("max_grad_norm must be >= 0", o.max_grad_norm);
  if (!(o.target_kl >= 0)) refuse("target_kl must be >= 0", o.target_kl);
}

// 1 - Var(target - V) / Var(target); 0 where the targets are all equal.
double explained_variance(const PpoBatch& batch) {
  const double variance = batch.targets.to(torch::kFloat64).var(false).item<double>();
  if (variance == 0.0) return 0.0;
  const torch::Tensor error = (batch.targets - batch.values).to(torch::kFloat64);
  return 1.0 - error.var(false).item<double>() / variance;
}

}  // namespace

// ----------------------------------------------------------------------------------
// roll-out

// Time first. The batch of an update is its (S E) rows.
struct Ppo::Rollout {
  torch::Tensor observations;                       // (S x E x observation_size)
  torch::Tensor actions;                            // (S x E) int64
  torch::Tensor log_probs, values, rewards, dones;  // (S x E)
  torch::Tensor bootstrap;                          // (E)

  PpoBatch batch(double gamma, double gae_lambda) const {
    const torch::Tensor a =
        pion::lab::advantages(rewards, values, dones, bootstrap, gamma, gae_lambda);
    return {observations.flatten(0, 1), actions.flatten(), log_probs.flatten(),
            values.flatten(),           a.flatten(),       (a + values).flatten()};
  }
};

// Rewards (bootstrapped at truncations), ends of episodes and their statistics.
void Ppo::record_step(const StepResult& result, float* rewards, float* dones) {
  const std::int64_t n = environment_.environments(),
                     size = environment_.observation_size();
  std::vector<std::int64_t> cut;
  for (std::int64_t e = 0; e < n; ++e) {
    rewards[e] = result.rewards[e];
    dones[e] = result.done(e) ? 1.0f : 0.0f;
    if (!result.done(e)) continue;
    if (result.truncated[e]) cut.push_back(e);
    ++episodes_finished_;
    episodes_.push_back({result.episode_returns[e],
                         static_cast<double>(result.episode_lengths[e]),
                         static_cast<double>(result.scores[e])});
    if (episodes_.size() > kEpisodeWindow) episodes_.pop_front();
  }
  if (!options_.bootstrap_truncated || cut.empty()) return;
  torch::Tensor last = torch::empty({static_cast<std::int64_t>(cut.size()), size});
  for (std::size_t i = 0; i < cut.size(); ++i) {
    const float* from = result.final_observations.data() + cut[i] * size;
    std::copy_n(from, size, last.data_ptr<float>() + static_cast<std::int64_t>(i) * size);
  }
  const torch::Tensor value = model_.forward(last).value;
  for (std::size_t i = 0; i < cut.size(); ++i) {
    rewards[cut[i]] += static_cast<float>(options_.gamma) *
                       value[static_cast<std::int64_t>(i)].item<float>();
  }
}

Ppo::Rollout Ppo::collect() {
  const torch::NoGradGuard no_grad;
  const std::int64_t steps = options_.horizon, n = environment_.environments();
  const std::int64_t size = environment_.observation_size();
  Rollout r{torch::empty({steps, n, size}),
            torch::empty({steps, n}, torch::kInt64),
            torch::empty({steps, n}),
            torch::empty({steps, n}),
            torch::empty({steps, n}),
            torch::empty({steps, n}),
            {}};
  for (std::int64_t t = 0; t < steps; ++t) {
    const torch::Tensor seen = r.observations[t];
    environment_.observe({seen.data_ptr<float>(), static_cast<std::size_t>(n * size)});
    const PolicyOutput output = model_.forward(seen);
    const torch::Tensor log_probs = torch::log_softmax(output.logits, -1);
    const torch::Tensor actions =
        torch::multinomial(log_probs.exp(), 1, true, generator_);
    r.actions[t].copy_(actions.squeeze(-1));
    r.log_probs[t].copy_(log_probs.gather(-1, actions).squeeze(-1));
    r.values[t].copy_(output.value);
    const StepResult& result = environment_.step(
        {r.actions[t].data_ptr<std::int64_t>(), static_cast<std::size_t>(n)});
    record_step(result, r.rewards[t].data_ptr<float>(), r.dones[t].data_ptr<float>());
  }
  torch::Tensor last = torch::empty({n, size});
  environment_.observe({last.data_ptr<float>(), static_cast<std::size_t>(n * size)});
  r.bootstrap = model_.forward(last).value;
  env_steps_ += steps * n;
  return r;
}

// --------------------------------------------------------------------------------
// advantages

torch::Tensor advantages(const torch::Tensor& rewards, const torch::Tensor& values,
                         const torch::Tensor& dones, const torch::Tensor& bootstrap,
                         double gamma, double gae_lambda) {
  const std::int64_t steps = rewards.size(0);
  torch::Tensor result = torch::empty_like(rewards);
  torch::Tensor next_value = bootstrap.to(torch::kFloat64);
  torch::Tensor next_advantage = torch::zeros_like(next_value);
  for (std::int64_t t = steps - 1; t >= 0; --t) {
    const torch::Tensor going_on = 1.0 - dones[t].to(torch::kFloat64);
    const torch::Tensor value = values[t].to(torch::kFloat64);
    const torch::Tensor delta = rewards[t] + gamma * next_value * going_on - value;
    next_advantage = delta + gamma * gae_lambda * going_on * next_advantage;
    next_value = value;
    result[t].copy_(next_advantage);
  }
  return result;
}

// ------------------------------------------------------------------------------
// mini-batches

PpoBatch PpoBatch::rows(const torch::Tensor& indices) const {
  const auto take = [&](const torch::Tensor& all) {
    return all.index_select(0, indices);
  };
  return {take(observations), take(actions),    take(log_probs),
          take(values),       take(advantages), take(targets)};
}

std::vector<torch::Tensor> minibatch_indices(std::int64_t n, std::int64_t count,
                                             torch::Generator generator) {
  return torch::randperm(n, generator, torch::kInt64).split(n / count);
}

// --------------------------------------------------------------------------------------
// loss

PpoLoss ppo_loss(const PolicyOutput& output, const PpoBatch& batch,
                 const PpoOptions& options) {
  const double c = options.clip;
  torch::Tensor a = batch.advantages;
  if (options.normalize_advantages) {
    const bool equal = (a.max() == a.min()).item<bool>();
    a = equal ? torch::zeros_like(a)
              : (a - a.mean()) / (a.std(/*unbiased=*/false) + 1e-8);
  }
  const torch::Tensor all = torch::log_softmax(output.logits, -1);
  const torch::Tensor log_ratio =
      all.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1) - batch.log_probs;
  const torch::Tensor ratio = log_ratio.exp();
  const torch::Tensor policy =
      -torch::min(ratio * a, ratio.clamp(1 - c, 1 + c) * a).mean();

  torch::Tensor square = (output.value - batch.targets).square();
  if (options.clip_value) {
    const torch::Tensor clipped =
        batch.values + (output.value - batch.values).clamp(-c, c);
    square = torch::max(square, (clipped - batch.targets).square());
  }
  const torch::Tensor value = 0.5 * square.mean();
  const torch::Tensor entropy = -(all.exp() * all).sum(-1).mean();

  PpoLoss loss;
  loss.total =
      policy + options.value_coefficient * value - options.entropy_coefficient * entropy;
  const torch::NoGradGuard no_grad;
  loss.policy = policy.detach();
  loss.value = value.detach();
  loss.entropy = entropy.detach();
  loss.approx_kl = ((ratio - 1) - log_ratio).mean();
  loss.clip_fraction = ((ratio - 1).abs() > c).to(torch::kFloat32).mean();
  return loss;
}

// ------------------------------------------------------------------------------------
// update

double annealing_factor(std::int64_t index, std::int64_t updates) {
  return 1.0 - static_cast<double>(index) / static_cast<double>(updates);
}

Ppo::Ppo(ActorCritic& model, VectorEnvironment& environment, const PpoOptions& options)
    : model_(model),
      environment_(environment),
      options_(options),
      generator_(at::detail::createCPUGenerator(options.seed)) {
  check_options(options, environment.environments());
}

std::int64_t Ppo::updates() const {
  return options_.total_timesteps / (environment_.environments() * options_.horizon);
}

// Sums over the mini-batches of one update.
struct Ppo::Sums {
  std::int64_t steps = 0, skipped = 0;
  double policy = 0, value = 0, entropy = 0, kl = 0, clip_fraction = 0, gradient_norm = 0;
  double last_kl = 0;
};

// Returns false, and does nothing, if all advantages are zero.
bool Ppo::step_minibatch(const PpoBatch& batch, torch::optim::Optimizer& optimizer,
                         Sums& sums) {
  if (!batch.advantages.any().item<bool>()) return false;
  const PpoLoss loss = ppo_loss(model_.forward(batch.observations), batch, options_);
  optimizer.zero_grad();
  loss.total.backward();
  const double limit = options_.max_grad_norm > 0 ? options_.max_grad_norm : INFINITY;
  sums.gradient_norm += torch::nn::utils::clip_grad_norm_(model_.parameters(), limit);
  optimizer.step();
  sums.policy += loss.policy.item<double>();
  sums.value += loss.value.item<double>();
  sums.entropy += loss.entropy.item<double>();
  sums.last_kl = loss.approx_kl.item<double>();
  sums.kl += sums.last_kl;
  sums.clip_fraction += loss.clip_fraction.item<double>();
  return true;
}

nlohmann::ordered_json Ppo::update(std::int64_t index, torch::optim::Optimizer& optimizer,
                                   const std::function<void(double)>& set_lr_factor) {
  const auto start = std::chrono::steady_clock::now();
  if (options_.anneal_lr) set_lr_factor(annealing_factor(index, updates()));
  const PpoBatch batch = collect().batch(options_.gamma, options_.gae_lambda);
  const std::int64_t n = batch.actions.size(0);

  Sums sums;
  for (std::int64_t epoch = 0; epoch < options_.epochs; ++epoch) {
    for (const torch::Tensor& rows :
         minibatch_indices(n, options_.minibatches, generator_)) {
      ++(step_minibatch(batch.rows(rows), optimizer, sums) ? sums.steps : sums.skipped);
    }
    if (options_.target_kl > 0 && sums.last_kl > options_.target_kl) break;
  }

  const double count = std::max<double>(1.0, static_cast<double>(sums.steps));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  nlohmann::ordered_json metrics = {{"env_steps", env_steps_}};
  report_episodes(metrics);
  metrics["policy_loss"] = sums.policy / count;
  metrics["value_loss"] = sums.value / count;
  metrics["entropy"] = sums.entropy / count;
  metrics["approx_kl"] = sums.kl / count;
  metrics["clip_fraction"] = sums.clip_fraction / count;
  metrics["explained_variance"] = explained_variance(batch);
  metrics["gradient_norm"] = sums.gradient_norm / count;  // before clipping
  metrics["optimizer_steps"] = sums.steps;
  metrics["steps_skipped"] = sums.skipped;
  metrics["steps_per_second"] = static_cast<double>(n) / seconds.count();
  return metrics;
}

// Means over the window; nothing before the first episode has finished.
void Ppo::report_episodes(nlohmann::ordered_json& metrics) const {
  metrics["episodes"] = episodes_finished_;
  if (episodes_.empty()) return;
  Episode sum{0, 0, 0};
  for (const Episode& episode : episodes_) {
    sum.reward += episode.reward, sum.length += episode.length,
        sum.score += episode.score;
  }
  const auto count = static_cast<double>(episodes_.size());
  metrics["return_mean"] = sum.reward / count;
  metrics["score_mean"] = sum.score / count;
  metrics["episode_length"] = sum.length / count;
}

// --------------------------------------------------------------------------------
// checkpoint

void Ppo::save(std::map<std::string, torch::Tensor>& tensors,
               nlohmann::ordered_json& state) const {
  const std::vector<std::uint8_t> bytes = environment_.save();
  torch::Tensor environment =
      torch::empty({static_cast<std::int64_t>(bytes.size())}, torch::kUInt8);
  std::copy(bytes.begin(), bytes.end(), environment.data_ptr<std::uint8_t>());
  tensors["ppo.environment"] = environment;
  tensors["ppo.generator"] = generator_.get_state().clone();
  torch::Tensor episodes =
      torch::empty({static_cast<std::int64_t>(episodes_.size()), 3}, torch::kFloat64);
  double* to = episodes.data_ptr<double>();
  for (const Episode& e : episodes_) *to++ = e.reward, *to++ = e.length, *to++ = e.score;
  tensors["ppo.episodes"] = episodes;
  state["ppo"] = {{"env_steps", env_steps_}, {"episodes_finished", episodes_finished_}};
}

void Ppo::load(const std::map<std::string, torch::Tensor>& tensors,
               const nlohmann::ordered_json& state) {
  const auto find = [&](const std::string& name, torch::ScalarType type,
                        std::int64_t dim) {
    const auto at = tensors.find(name);
    if (at == tensors.end() || at->second.scalar_type() != type ||
        at->second.dim() != dim) {
      throw std::invalid_argument("Ppo::load: the checkpoint must hold the tensor " +
                                  name + "; it is of another task or version");
    }
    return at->second.contiguous();
  };
  const torch::Tensor environment = find("ppo.environment", torch::kUInt8, 1);
  const torch::Tensor generator = find("ppo.generator", torch::kUInt8, 1);
  const torch::Tensor episodes = find("ppo.episodes", torch::kFloat64, 2);
  if (episodes.size(1) != 3 ||
      episodes.size(0) > static_cast<std::int64_t>(kEpisodeWindow) ||
      generator.numel() != generator_.get_state().numel()) {
    throw std::invalid_argument(
        "Ppo::load: ppo.episodes or ppo.generator has another size");
  }
  const auto count = [&](const char* name) {
    const auto own = state.find("ppo");
    const auto whole = own != state.end() && own->is_object() && own->contains(name)
                           ? json_integer((*own)[name])
                           : std::nullopt;
    if (!whole || *whole < 0)
      throw std::invalid_argument("Ppo::load: the state must hold \"ppo\" with " +
                                  std::string(name) +
                                  ", a whole number; it is of another task");
    return *whole;
  };
  const std::int64_t env_steps = count("env_steps");
  const std::int64_t episodes_finished = count("episodes_finished");
  environment_.restore({environment.data_ptr<std::uint8_t>(),
                        static_cast<std::size_t>(environment.numel())});
  generator_.set_state(generator.clone());
  env_steps_ = env_steps;
  episodes_finished_ = episodes_finished;
  episodes_.clear();
  const double* from = episodes.data_ptr<double>();
  for (std::int64_t i = 0; i < episodes.size(0); ++i, from += 3) {
    episodes_.push_back({from[0], from[1], from[2]});
  }
}

}  // namespace pion::lab
