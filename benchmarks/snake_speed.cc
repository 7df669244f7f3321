// SPDX-License-Identifier: Apache-2.0
// Question  How many environment steps and PPO steps a second does Snake make, and what
//           does one forward pass of the policy cost?
// Run       build/release/benchmarks/snake_speed [--json FILE] [--seconds S]
// Results   docs/results/speed.md
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "lab/algorithms/ppo.h"
#include "lab/envs/snake.h"
#include "lab/models/transformer_policy.h"

namespace {

using namespace pion::lab;
using Clock = std::chrono::steady_clock;

// Seconds of one call: the median over repeated calls for `seconds`, after one to warm
// up.
double median_seconds(double seconds, const std::function<void()>& call) {
  call();
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point before = Clock::now();
    call();
    times.push_back(std::chrono::duration<double>(Clock::now() - before).count());
  } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds ||
           times.size() < 3);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Random play with observations, on the recipe's board.
double environment_steps_per_second(std::int64_t environments, int threads,
                                    double seconds) {
  Snake snake({.height = 8,
               .width = 8,
               .environments = environments,
               .threads = threads,
               .hints = true});
  std::vector<float> seen(environments * snake.observation_size());
  std::vector<std::int64_t> actions(environments);
  std::uint64_t state = 1;
  const auto call = [&] {
    for (std::int64_t& action : actions) {
      state = state * 6364136223846793005ULL +
              1442695040888963407ULL;  // Knuth's MMIX generator
      action = static_cast<std::int64_t>(state >> 62);
    }
    snake.step(actions);
    snake.observe(seen);
  };
  return static_cast<double>(environments) / median_seconds(seconds, call);
}

TransformerPolicyOptions policy_options(const Snake& snake) {
  return {.height = 8,
          .width = 8,
          .planes = snake.planes(),
          .patch = 2,
          .d_model = 64,
          .num_layers = 1};
}

double forward_seconds(std::int64_t batch, double seconds) {
  const torch::NoGradGuard no_grad;
  Snake snake({.height = 8, .width = 8, .environments = batch, .hints = true});
  TransformerPolicy policy(policy_options(snake));
  torch::Tensor seen = torch::empty({batch, snake.observation_size()});
  snake.observe({seen.data_ptr<float>(), static_cast<std::size_t>(seen.numel())});
  return median_seconds(seconds, [&] { policy.forward(seen); });
}

// PPO as in lab/recipes/snake.toml with torch's own AdamW.
double ppo_steps_per_second(int threads, double seconds) {
  torch::set_num_threads(threads);
  Snake snake({.height = 8, .width = 8, .hints = true});
  TransformerPolicy policy(policy_options(snake));
  Ppo ppo(policy, snake, {.total_timesteps = 1 << 30});
  torch::optim::AdamW optimizer(policy.parameters(),
                                torch::optim::AdamWOptions(1e-3).eps(1e-5));
  std::int64_t index = 0;
  const double time =
      median_seconds(seconds, [&] { ppo.update(index++, optimizer, [](double) {}); });
  torch::set_num_threads(1);
  return 64 * 32 / time;
}

int run(int argc, char** argv) {
  std::string file;
  double seconds = 3.0;  // for each line of the table
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc || (flag != "--json" && flag != "--seconds")) {
      throw std::invalid_argument("snake_speed: wants --json FILE or --seconds S, got " +
                                  flag);
    }
    if (flag == "--json") file = argv[i + 1];
    if (flag == "--seconds") seconds = std::stod(argv[i + 1]);
  }
  torch::set_num_threads(1);
  torch::manual_seed(1);

  nlohmann::ordered_json rows;
  std::printf("%-36s %8s %8s %14s\n", "what", "batch", "threads", "value");
  const auto report = [&](const char* what, std::int64_t batch, int threads,
                          double value) {
    std::printf("%-36s %8lld %8d %14.5g\n", what, static_cast<long long>(batch), threads,
                value);
    rows.push_back(
        {{"what", what}, {"batch", batch}, {"threads", threads}, {"value", value}});
  };
  for (const std::int64_t batch : {64, 4096}) {
    for (const int threads : {1, 2}) {
      report("environment steps per second", batch, threads,
             environment_steps_per_second(batch, threads, seconds));
    }
  }
  for (const std::int64_t batch : {64, 512}) {
    report("forward pass, milliseconds", batch, 1, 1e3 * forward_seconds(batch, seconds));
  }
  for (const int threads : {1, 2}) {
    report("PPO environment steps per second", 64, threads,
           ppo_steps_per_second(threads, seconds));
  }
  if (file.empty()) {
    std::printf("%s\n", rows.dump().c_str());
  } else if (!(std::ofstream(file) << rows.dump(2) << '\n')) {
    throw std::invalid_argument("snake_speed: cannot write " + file);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
