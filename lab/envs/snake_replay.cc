// SPDX-License-Identifier: Apache-2.0
// Plays Snake by given actions, so that another implementation of the rules can be held
// to this one, step by step:
//
//   snake_replay height=5 width=4 environments=3 seed=7 hints=1 < actions > states
//
// Keys are the fields of SnakeOptions. A line of input has one action for each
// environment. A line of output is a JSON object: `frames` and `observations` as they are
// now, and behind a step also its `rewards`, `terminated`, `truncated`, `wins`, `scores`,
// `episode_returns`, `episode_lengths` and `final_observations`, which hold where an
// episode ended.
#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "lab/envs/snake.h"

namespace pion::lab {
namespace {

using Json = nlohmann::ordered_json;

void set_option(SnakeOptions& options, const std::string& key, const std::string& text) {
  std::size_t used = 0;
  const double value = std::stod(text, &used);
  if (used != text.size()) throw std::invalid_argument(key + " must be a number");
  if (key == "height") {
    options.height = static_cast<int>(value);
  } else if (key == "width") {
    options.width = static_cast<int>(value);
  } else if (key == "environments") {
    options.environments = static_cast<std::int64_t>(value);
  } else if (key == "seed") {
    options.seed = static_cast<std::uint64_t>(value);
  } else if (key == "start_length") {
    options.start_length = static_cast<int>(value);
  } else if (key == "starvation_steps") {
    options.starvation_steps = static_cast<int>(value);
  } else if (key == "food_reward") {
    options.food_reward = value;
  } else if (key == "death_reward") {
    options.death_reward = value;
  } else if (key == "win_reward") {
    options.win_reward = value;
  } else if (key == "step_reward") {
    options.step_reward = value;
  } else if (key == "approach_reward") {
    options.approach_reward = value;
  } else if (key == "hints") {
    options.hints = value != 0;
  } else {
    throw std::invalid_argument("unknown key \"" + key + "\"; see lab/envs/snake.h");
  }
}

SnakeOptions parse(int count, char** words) {
  SnakeOptions options;
  options.environments = 1;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) {
      throw std::invalid_argument("arguments must be key=value, got \"" + word + "\"");
    }
    set_option(options, word.substr(0, equals), word.substr(equals + 1));
  }
  return options;
}

Json state(const Snake& snake) {
  Json frames = Json::array();
  for (std::int64_t e = 0; e < snake.environments(); ++e) {
    const SnakeFrame frame = snake.frame(e);
    frames.push_back({{"snake", frame.snake}, {"food", frame.food}});
  }
  std::vector<float> seen(
      static_cast<std::size_t>(snake.environments() * snake.observation_size()));
  snake.observe(seen);
  return {{"frames", frames}, {"observations", seen}};
}

void play(Snake& snake) {
  std::cout << state(snake) << '\n';
  std::vector<std::int64_t> actions;
  for (std::string line; std::getline(std::cin, line);) {
    actions.clear();
    std::istringstream words(line);
    for (std::int64_t action = 0; words >> action;) actions.push_back(action);
    if (!words.eof()) throw std::invalid_argument("actions must be numbers: " + line);
    const StepResult& result = snake.step(actions);
    Json json = state(snake);
    json["rewards"] = result.rewards;
    json["terminated"] = result.terminated;
    json["truncated"] = result.truncated;
    json["wins"] = result.wins;
    json["scores"] = result.scores;
    json["episode_returns"] = result.episode_returns;
    json["episode_lengths"] = result.episode_lengths;
    json["final_observations"] = result.final_observations;
    std::cout << json << '\n';
  }
}

}  // namespace
}  // namespace pion::lab

int main(int count, char** words) {
  try {
    pion::lab::Snake snake(pion::lab::parse(count, words));
    pion::lab::play(snake);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "snake_replay: " << error.what() << '\n';
    return 1;
  }
}
