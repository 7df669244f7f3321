// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lab/envs/vector_environment.h"
#include "lab/envs/worker_pool.h"

namespace pion::lab {

// Snake on a (height x width) board with walls. The rules:
//
//   Start      `start_length` cells in a row, head nearest to the middle, heading in one
//              of the directions that have room, at random; one food.
//   Actions    0 up, 1 right, 2 down, 3 left. Reversing into the own neck is not a move:
//              the snake goes on straight. A snake of one cell may turn round.
//   Food       Uniform over the free cells. Eating it scores 1, grows the snake by one
//              cell (the tail stays for that step) and draws the next food.
//   Death      The head enters a wall or the body. The cell that the tail leaves in the
//              same step is free.
//   Win        The snake fills the board: the episode terminates.
//   Starvation `starvation_steps` steps without food: the episode is truncated, not
//              terminated.
//   Reset      At once, see VectorEnvironment.
//
// Score is the number of foods eaten in the episode.
//
// Random numbers: SplitMix64 of a counter, keyed by (seed, environment). Results are the
// same for every number of threads, and environment i is the same for every number of
// environments.
struct SnakeOptions {
  int height = 6, width = 6;       // cells, in [2, 64]
  std::int64_t environments = 64;  // >= 1
  int threads = 1;                 // >= 1
  std::uint64_t seed = 1;
  int start_length = 2;        // cells, in [1, max(height, width)], less than the board
  int starvation_steps = 0;    // steps without food before truncation; 0: 2 height width
  double food_reward = 1.0;    // added when food is eaten
  double death_reward = -1.0;  // added when the snake dies
  double win_reward = 0.0;     // added, beside the food's, when the board is full
  double step_reward = 0.0;    // added in every step
  double approach_reward = 0.0;  // times the decrease of the distance |dr| + |dc| to the
                                 // food; no effect in a step that eats or dies
  bool hints = false;            // egocentric planes, see SnakePlane
};

// An observation is (height, width, planes()) floats, cells in row-major order, planes
// innermost. Every value lies in [-1, 1].
enum SnakePlane {
  kBodyPlane,     // 1 on every cell of the snake, head included
  kHeadPlane,     // 1 on the head
  kFoodPlane,     // 1 on the food
  kTailPlane,     // 1 on the tail
  kAgePlane,      // steps until the cell is free if nothing is eaten, over height width
  kHeadingPlane,  // four planes, by direction: 1 on the head if it is heading there
  kPlainPlanes = kHeadingPlane + 4,
  // With `hints`: nothing that the planes above do not say, but relative to the head.
  kBlockedPlane = kPlainPlanes,  // four planes, by direction: on the head, 1 if a step
                                 // there hits a wall or the body
  kFoodOffsetPlane = kBlockedPlane + 4,  // two planes, on the head: rows and columns from
                                         // head to food over (height, width)
  kHintedPlanes = kFoodOffsetPlane + 2,
};

// One board as cells (row, column).
struct SnakeFrame {
  std::vector<std::array<int, 2>> snake;  // head first
  std::array<int, 2> food;                // (-1, -1): none, the board is full
  std::int64_t score;
};

class Snake : public VectorEnvironment {
 public:
  // Throws std::invalid_argument if an option is out of range.
  explicit Snake(const SnakeOptions& options);

  std::int64_t environments() const override { return options_.environments; }
  std::int64_t observation_size() const override { return cells_ * planes(); }
  std::int64_t actions() const override { return 4; }
  std::int64_t planes() const { return options_.hints ? kHintedPlanes : kPlainPlanes; }
  const SnakeOptions& options() const { return options_; }

  void observe(std::span<float> observations) const override;
  const StepResult& step(std::span<const std::int64_t> actions) override;
  std::vector<std::uint8_t> save() const override;
  void restore(std::span<const std::uint8_t> state) override;

  SnakeFrame frame(std::int64_t environment) const;

  // Puts a board in place of an environment's present one, keeping its generator; score,
  // steps and return start at 0 (`frame.score` is not read). For tests and puzzles.
  // Throws std::invalid_argument if the cells are not a snake or the food lies on it.
  void place(std::int64_t environment, const SnakeFrame& frame);

 private:
  // The fixed part of one environment's state; its body lies in a ring of cells_ entries.
  struct Episode {
    std::uint64_t draws = 0;  // random numbers taken so far
    // index of the head in the ring; the body follows at head + 1, ...
    std::int32_t head = 0;
    std::int32_t length = 0;  // cells
    std::int32_t heading = 0;
    std::int32_t food = -1;   // cell, -1: none
    std::int32_t hungry = 0;  // steps since the last food
    std::int32_t score = 0;
    std::int64_t steps = 0;
    double reward = 0.0;  // so far
  };

  std::uint64_t draw(std::int64_t e, std::uint64_t bound);  // uniform in [0, bound)
  std::int16_t* ring(std::int64_t e) { return rings_.data() + e * cells_; }
  const std::int16_t* ring(std::int64_t e) const { return rings_.data() + e * cells_; }
  int body_cell(std::int64_t e,
                std::int64_t i) const;           // i-th cell of the snake, 0 the head
  int neighbour(int cell, int direction) const;  // -1: a wall
  bool blocked(std::int64_t e, int direction) const;
  void reset(std::int64_t e);
  void place_food(std::int64_t e);
  void advance(std::int64_t e, int action);
  void observe_one(std::int64_t e, float* observation) const;
  int food_distance(std::int64_t e) const;

  SnakeOptions options_;
  std::int64_t cells_;
  std::vector<Episode> episodes_;       // (E)
  std::vector<std::int16_t> rings_;     // (E x cells)
  std::vector<std::uint8_t> occupied_;  // (E x cells) 1 where the snake is
  StepResult result_;
  mutable WorkerPool pool_;
};

}  // namespace pion::lab
