// SPDX-License-Identifier: Apache-2.0
#include "lab/envs/snake.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace pion::lab {
namespace {

constexpr int kRowStep[4] = {-1, 0, 1, 0};  // up, right, down, left
constexpr int kColStep[4] = {0, 1, 0, -1};
constexpr std::uint64_t kStateMark = 0x31656b616e53ULL;  // "Snake1", little endian

// The finalizer of SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom
// number generators", OOPSLA 2014.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

[[noreturn]] void refuse(const std::string& what, std::int64_t got) {
  throw std::invalid_argument("Snake: " + what + ", got " + std::to_string(got));
}

void check_options(const SnakeOptions& o) {
  if (o.height < 2 || o.height > 64) refuse("height must be in [2, 64]", o.height);
  if (o.width < 2 || o.width > 64) refuse("width must be in [2, 64]", o.width);
  if (o.environments < 1 || o.environments > 1 << 20) {
    refuse("environments must be in [1, 1048576]", o.environments);
  }
  if (o.start_length < 1 || o.start_length > std::max(o.height, o.width)) {
    refuse("start_length must be in [1, max(height, width)]", o.start_length);
  }
  if (o.starvation_steps < 0) {
    refuse("starvation_steps must be >= 0 (0: twice the cells)", o.starvation_steps);
  }
}

template <class T>
void append(std::vector<std::uint8_t>& bytes, const T* data, std::size_t count) {
  const std::size_t at = bytes.size();
  bytes.resize(at + count * sizeof(T));
  std::memcpy(bytes.data() + at, data, count * sizeof(T));
}

}  // namespace

Snake::Snake(const SnakeOptions& options)
    : options_((check_options(options), options)),
      cells_(std::int64_t{options.height} * options.width),
      pool_(options.threads) {
  if (options_.starvation_steps == 0)
    options_.starvation_steps = static_cast<int>(2 * cells_);
  const auto n = static_cast<std::size_t>(options_.environments);
  episodes_.resize(n);
  rings_.resize(n * cells_);
  occupied_.resize(n * cells_);
  result_.rewards.resize(n);
  result_.terminated.resize(n);
  result_.truncated.resize(n);
  result_.final_observations.resize(n * observation_size());
  result_.episode_returns.resize(n);
  result_.episode_lengths.resize(n);
  result_.scores.resize(n);
  result_.wins.resize(n);
  for (std::int64_t e = 0; e < options_.environments; ++e) reset(e);
}

std::uint64_t Snake::draw(std::int64_t e, std::uint64_t bound) {
  const std::uint64_t key =
      mix(options_.seed + 0x9e3779b97f4a7c15ULL) ^ mix(~std::uint64_t(e));
  const std::uint64_t random = mix(key + ++episodes_[e].draws * 0x9e3779b97f4a7c15ULL);
  // high word of the product: off from uniform by less than bound / 2^64
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(random) * bound) >>
                                    64);
}

int Snake::body_cell(std::int64_t e, std::int64_t i) const {
  const std::int64_t at = episodes_[e].head + i;
  return ring(e)[at < cells_ ? at : at - cells_];
}

int Snake::neighbour(int cell, int direction) const {
  const int row = cell / options_.width + kRowStep[direction];
  const int col = cell % options_.width + kColStep[direction];
  const bool inside =
      row >= 0 && row < options_.height && col >= 0 && col < options_.width;
  return inside ? row * options_.width + col : -1;
}

bool Snake::blocked(std::int64_t e, int direction) const {
  const int cell = neighbour(body_cell(e, 0), direction);
  if (cell < 0) return true;
  // the tail's cell is left in the same step; food never lies there
  return occupied_[e * cells_ + cell] != 0 &&
         cell != body_cell(e, episodes_[e].length - 1);
}

void Snake::reset(std::int64_t e) {
  const int height = options_.height, width = options_.width,
            length = options_.start_length;
  int headings[4], count = 0;
  for (int d = 0; d < 4; ++d) {
    if (length <= (kRowStep[d] != 0 ? height : width)) headings[count++] = d;
  }
  Episode& episode = episodes_[e];
  episode = {.draws = episode.draws};
  episode.heading = headings[draw(e, count)];
  episode.length = length;

  // the head in the middle, or as near to it as leaves room for the body behind it
  const int back_row = -kRowStep[episode.heading], back_col = -kColStep[episode.heading];
  int row = height / 2, col = width / 2;
  if (back_row > 0) row = std::min(row, height - length);
  if (back_row < 0) row = std::max(row, length - 1);
  if (back_col > 0) col = std::min(col, width - length);
  if (back_col < 0) col = std::max(col, length - 1);

  std::fill_n(occupied_.begin() + e * cells_, cells_, 0);
  for (int i = 0; i < length; ++i) {
    const int cell = (row + i * back_row) * width + col + i * back_col;
    ring(e)[i] = static_cast<std::int16_t>(cell);
    occupied_[e * cells_ + cell] = 1;
  }
  place_food(e);
}

void Snake::place_food(std::int64_t e) {
  Episode& episode = episodes_[e];
  episode.food = -1;
  const std::int64_t free = cells_ - episode.length;
  if (free == 0) return;
  const std::uint8_t* occupied = occupied_.data() + e * cells_;
  auto skip = static_cast<std::int64_t>(draw(e, static_cast<std::uint64_t>(free)));
  for (std::int32_t cell = 0;; ++cell) {
    if (occupied[cell] == 0 && skip-- == 0) {
      episode.food = cell;
      return;
    }
  }
}

int Snake::food_distance(std::int64_t e) const {
  const int head = body_cell(e, 0), food = episodes_[e].food, width = options_.width;
  return std::abs(head / width - food / width) + std::abs(head % width - food % width);
}

// Moves one snake and fills its row of result_; resets it where the episode ends.
void Snake::advance(std::int64_t e, int action) {
  Episode& episode = episodes_[e];
  const bool reversing = episode.length > 1 && (action ^ episode.heading) == 2;
  if (!reversing) episode.heading = action;
  double reward = options_.step_reward;
  const bool dead = blocked(e, episode.heading);
  bool won = false;
  ++episode.steps;
  ++episode.hungry;

  if (dead) {
    reward += options_.death_reward;
  } else {
    std::uint8_t* occupied = occupied_.data() + e * cells_;
    const int cell = neighbour(body_cell(e, 0), episode.heading);
    const int before = food_distance(e);
    const bool eats = cell == episode.food;
    if (!eats) occupied[body_cell(e, episode.length - 1)] = 0;
    episode.head =
        static_cast<std::int32_t>(episode.head > 0 ? episode.head - 1 : cells_ - 1);
    ring(e)[episode.head] = static_cast<std::int16_t>(cell);
    occupied[cell] = 1;
    if (eats) {
      ++episode.length;
      ++episode.score;
      episode.hungry = 0;
      reward += options_.food_reward;
      won = episode.length == cells_;
      if (won) reward += options_.win_reward;
      place_food(e);
    } else {
      reward += options_.approach_reward * (before - food_distance(e));
    }
  }

  episode.reward += reward;
  const bool starved = !dead && !won && episode.hungry >= options_.starvation_steps;
  result_.rewards[e] = static_cast<float>(reward);
  result_.terminated[e] = dead || won;
  result_.truncated[e] = starved;
  if (!dead && !won && !starved) return;
  result_.episode_returns[e] = episode.reward;
  result_.episode_lengths[e] = episode.steps;
  result_.scores[e] = episode.score;
  result_.wins[e] = won;
  observe_one(e, result_.final_observations.data() + e * observation_size());
  reset(e);
}

const StepResult& Snake::step(std::span<const std::int64_t> actions) {
  if (static_cast<std::int64_t>(actions.size()) != environments()) {
    refuse("step wants one action for each of " + std::to_string(environments()) +
               " environments",
           static_cast<std::int64_t>(actions.size()));
  }
  for (const std::int64_t action : actions) {
    if (action < 0 || action > 3) refuse("an action must be in [0, 3]", action);
  }
  pool_.run(environments(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t e = begin; e < end; ++e) advance(e, static_cast<int>(actions[e]));
  });
  return result_;
}

void Snake::observe_one(std::int64_t e, float* observation) const {
  const Episode& episode = episodes_[e];
  const std::int64_t stride = planes();
  std::fill_n(observation, observation_size(), 0.0f);
  for (std::int64_t i = 0; i < episode.length; ++i) {
    float* cell = observation + body_cell(e, i) * stride;
    cell[kBodyPlane] = 1.0f;
    cell[kAgePlane] = static_cast<float>(episode.length - i) / static_cast<float>(cells_);
  }
  const int head = body_cell(e, 0), food = episode.food, width = options_.width;
  float* at_head = observation + head * stride;
  at_head[kHeadPlane] = 1.0f;
  at_head[kHeadingPlane + episode.heading] = 1.0f;
  observation[body_cell(e, episode.length - 1) * stride + kTailPlane] = 1.0f;
  if (food >= 0) observation[food * stride + kFoodPlane] = 1.0f;
  if (!options_.hints) return;
  for (int d = 0; d < 4; ++d) at_head[kBlockedPlane + d] = blocked(e, d) ? 1.0f : 0.0f;
  if (food < 0) return;
  at_head[kFoodOffsetPlane] = static_cast<float>(food / width - head / width) /
                              static_cast<float>(options_.height);
  at_head[kFoodOffsetPlane + 1] =
      static_cast<float>(food % width - head % width) / static_cast<float>(width);
}

void Snake::observe(std::span<float> observations) const {
  const std::int64_t size = observation_size();
  if (static_cast<std::int64_t>(observations.size()) != environments() * size) {
    refuse("observe wants room for " + std::to_string(environments() * size) + " floats",
           static_cast<std::int64_t>(observations.size()));
  }
  pool_.run(environments(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t e = begin; e < end; ++e)
      observe_one(e, observations.data() + e * size);
  });
}

SnakeFrame Snake::frame(std::int64_t e) const {
  if (e < 0 || e >= environments()) refuse("frame: no such environment", e);
  const Episode& episode = episodes_[e];
  const int width = options_.width;
  SnakeFrame frame{.snake = {}, .food = {-1, -1}, .score = episode.score};
  for (std::int64_t i = 0; i < episode.length; ++i) {
    const int cell = body_cell(e, i);
    frame.snake.push_back({cell / width, cell % width});
  }
  if (episode.food >= 0) frame.food = {episode.food / width, episode.food % width};
  return frame;
}

void Snake::place(std::int64_t e, const SnakeFrame& frame) {
  if (e < 0 || e >= environments()) refuse("place: no such environment", e);
  const auto inside = [&](const std::array<int, 2>& cell) {
    return cell[0] >= 0 && cell[0] < options_.height && cell[1] >= 0 &&
           cell[1] < options_.width;
  };
  const auto& snake = frame.snake;
  std::vector<std::uint8_t> taken(static_cast<std::size_t>(cells_));
  for (std::size_t i = 0; i < snake.size(); ++i) {
    const bool joined = i == 0 || std::abs(snake[i][0] - snake[i - 1][0]) +
                                          std::abs(snake[i][1] - snake[i - 1][1]) ==
                                      1;
    if (!inside(snake[i]) || !joined ||
        taken[snake[i][0] * options_.width + snake[i][1]]++ != 0) {
      refuse("place: cells must be on the board, joined and distinct; wrong at index",
             static_cast<std::int64_t>(i));
    }
  }
  if (snake.empty() || static_cast<std::int64_t>(snake.size()) >= cells_ ||
      !inside(frame.food) || taken[frame.food[0] * options_.width + frame.food[1]] != 0) {
    refuse(
        "place: the snake must leave a free cell and the food must lie on one; snake "
        "cells",
        static_cast<std::int64_t>(snake.size()));
  }
  Episode& episode = episodes_[e];
  episode = {.draws = episode.draws};
  episode.length = static_cast<std::int32_t>(snake.size());
  episode.food = frame.food[0] * options_.width + frame.food[1];
  for (std::size_t i = 0; i < snake.size(); ++i) {
    ring(e)[i] = static_cast<std::int16_t>(snake[i][0] * options_.width + snake[i][1]);
  }
  for (int d = 0; d < 4 && snake.size() > 1; ++d) {  // the heading follows from the neck
    if (neighbour(ring(e)[1], d) == ring(e)[0]) episode.heading = d;
  }
  std::copy(taken.begin(), taken.end(), occupied_.begin() + e * cells_);
}

std::vector<std::uint8_t> Snake::save() const {
  std::vector<std::uint8_t> bytes;
  const std::uint64_t header[] = {kStateMark, std::uint64_t(options_.height),
                                  std::uint64_t(options_.width),
                                  std::uint64_t(options_.environments), options_.seed};
  append(bytes, header, std::size(header));
  append(bytes, episodes_.data(), episodes_.size());
  append(bytes, rings_.data(), rings_.size());
  return bytes;
}

void Snake::restore(std::span<const std::uint8_t> state) {
  static_assert(sizeof(Episode) == 48, "saved as bytes, so it must have no padding");
  std::vector<Episode> episodes(episodes_.size());
  std::vector<std::int16_t> rings(rings_.size());
  std::vector<std::uint8_t> occupied(occupied_.size());
  const std::vector<std::uint8_t> mine = save();
  constexpr std::size_t kHeader = 5 * sizeof(std::uint64_t);
  if (state.size() != mine.size() ||
      std::memcmp(state.data(), mine.data(), kHeader) != 0) {
    refuse("restore: not a state of this board, number of environments and seed; bytes",
           static_cast<std::int64_t>(state.size()));
  }
  const std::size_t episode_bytes = episodes.size() * sizeof(Episode);
  std::memcpy(episodes.data(), state.data() + kHeader, episode_bytes);
  std::memcpy(rings.data(), state.data() + kHeader + episode_bytes, rings.size() * 2);

  for (std::int64_t e = 0; e < environments(); ++e) {
    const Episode& episode = episodes[e];
    const bool in_range =
        episode.head >= 0 && episode.head < cells_ && episode.length >= 1 &&
        episode.length < cells_ && episode.heading >= 0 && episode.heading < 4 &&
        episode.food >= 0 && episode.food < cells_ && episode.hungry >= 0 &&
        episode.hungry < options_.starvation_steps;
    if (!in_range) refuse("restore: damaged state of environment", e);
    for (std::int64_t i = 0; i < episode.length; ++i) {
      const int cell = rings[e * cells_ + (episode.head + i) % cells_];
      const int next = rings[e * cells_ + (episode.head + i + 1) % cells_];
      const int apart = std::abs(cell / options_.width - next / options_.width) +
                        std::abs(cell % options_.width - next % options_.width);
      if (cell < 0 || cell >= cells_ || cell == episode.food ||
          occupied[e * cells_ + cell]++ != 0 || (i + 1 < episode.length && apart != 1)) {
        refuse("restore: damaged snake of environment", e);
      }
    }
  }
  episodes_ = std::move(episodes);
  rings_ = std::move(rings);
  occupied_ = std::move(occupied);
}

}  // namespace pion::lab
