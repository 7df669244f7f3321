// SPDX-License-Identifier: Apache-2.0
#include "lab/envs/snake.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

namespace pion::lab {
namespace {

constexpr int kUp = 0, kRight = 1, kDown = 2, kLeft = 3;

// One 4 x 5 board with a given snake, head first.
struct Board : Snake {
  Board(const std::vector<std::array<int, 2>>& snake, std::array<int, 2> food,
        const SnakeOptions& options = {})
      : Snake(sized(options)) {
    place(0, {.snake = snake, .food = food, .score = 0});
  }
  static SnakeOptions sized(SnakeOptions options) {
    options.height = 4, options.width = 5, options.environments = 1;
    return options;
  }
};

const StepResult& move(Snake& env, std::int64_t action) { return env.step({&action, 1}); }

TEST(Snake, MovesTheHeadAndLeavesTheTail) {
  Board env({{2, 2}, {2, 1}, {2, 0}}, {0, 0});
  const StepResult& result = move(env, kUp);
  EXPECT_FALSE(result.done(0));
  EXPECT_EQ(result.rewards[0], 0.0f);
  const std::vector<std::array<int, 2>> expected = {{1, 2}, {2, 2}, {2, 1}};
  EXPECT_EQ(env.frame(0).snake, expected);
}

TEST(Snake, EatingScoresGrowsAndMovesTheFood) {
  Board env({{2, 2}, {2, 1}}, {2, 3});
  const StepResult& result = move(env, kRight);
  EXPECT_EQ(result.rewards[0], 1.0f);
  const SnakeFrame frame = env.frame(0);
  const std::vector<std::array<int, 2>> expected = {{2, 3}, {2, 2}, {2, 1}};
  EXPECT_EQ(frame.snake, expected);
  EXPECT_EQ(frame.score, 1);
  EXPECT_EQ(std::count(frame.snake.begin(), frame.snake.end(), frame.food), 0);
}

TEST(Snake, EveryWallKills) {
  const std::map<std::int64_t, std::vector<std::array<int, 2>>> facing = {
      {kUp, {{0, 2}, {1, 2}}},
      {kRight, {{1, 4}, {1, 3}}},
      {kDown, {{3, 2}, {2, 2}}},
      {kLeft, {{1, 0}, {1, 1}}}};
  for (const auto& [direction, snake] : facing) {
    Board env(snake, {2, 3});
    const StepResult& result = move(env, direction);
    EXPECT_EQ(result.rewards[0], -1.0f) << direction;
    EXPECT_TRUE(result.terminated[0]) << direction;
    EXPECT_FALSE(result.truncated[0]) << direction;
    EXPECT_EQ(result.episode_lengths[0], 1) << direction;
    EXPECT_EQ(env.frame(0).snake.size(), 2u) << "not reset";
  }
}

TEST(Snake, TheOwnBodyKills) {
  Board env({{1, 1}, {1, 2}, {2, 2}, {2, 1}, {2, 0}}, {0, 0});
  EXPECT_TRUE(move(env, kDown).terminated[0]);
}

TEST(Snake, TheCellThatTheTailLeavesIsFree) {
  Board env({{1, 1}, {1, 2}, {2, 2}, {2, 1}}, {0, 0});
  EXPECT_FALSE(move(env, kDown).done(0));
  const std::vector<std::array<int, 2>> expected = {{2, 1}, {1, 1}, {1, 2}, {2, 2}};
  EXPECT_EQ(env.frame(0).snake, expected);
}

TEST(Snake, ReversingGoesStraightOnAndASingleCellMayTurn) {
  Board env({{2, 2}, {2, 1}}, {0, 0});
  EXPECT_FALSE(move(env, kLeft).done(0));
  EXPECT_EQ(env.frame(0).snake[0], (std::array<int, 2>{2, 3}));

  Board single({{2, 2}}, {0, 0}, {.start_length = 1});
  move(single, kRight);
  move(single, kLeft);
  EXPECT_EQ(single.frame(0).snake[0], (std::array<int, 2>{2, 2}));
}

TEST(Snake, FillingTheBoardWins) {
  SnakeOptions options{.height = 2, .width = 2, .environments = 1, .win_reward = 5.0};
  Snake env(options);
  env.place(0, {.snake = {{0, 0}, {0, 1}, {1, 1}}, .food = {1, 0}, .score = 0});
  const StepResult& result = move(env, kDown);
  EXPECT_TRUE(result.terminated[0]);
  EXPECT_TRUE(result.wins[0]);
  EXPECT_EQ(result.rewards[0], 6.0f);
  EXPECT_EQ(result.scores[0], 1);
  for (std::int64_t cell = 0; cell < 4; ++cell) {  // the last board: full, without food
    EXPECT_EQ(result.final_observations[cell * env.planes() + kBodyPlane], 1.0f);
    EXPECT_EQ(result.final_observations[cell * env.planes() + kFoodPlane], 0.0f);
  }
}

TEST(Snake, StarvationTruncatesAndEatingResetsIt) {
  Board env({{1, 1}, {1, 2}, {2, 2}, {2, 1}}, {0, 0}, {.starvation_steps = 4});
  const std::int64_t circle[] = {kDown, kRight, kUp, kLeft};
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(move(env, circle[i]).done(0)) << i;
  const StepResult& result = move(env, circle[3]);
  EXPECT_TRUE(result.truncated[0]);
  EXPECT_FALSE(result.terminated[0]);
  EXPECT_EQ(result.rewards[0], 0.0f) << "starving is no death";
  EXPECT_EQ(result.episode_lengths[0], 4);

  Board fed({{0, 1}, {0, 0}}, {0, 2}, {.starvation_steps = 2});
  EXPECT_FALSE(move(fed, kRight).done(0));
  EXPECT_FALSE(move(fed, kDown).done(0)) << "one step without food";
}

TEST(Snake, OptionalRewardsAreAdded) {
  const SnakeOptions options{.step_reward = -0.25, .approach_reward = 0.5};
  Board env({{2, 2}, {2, 1}}, {2, 4}, options);
  EXPECT_EQ(move(env, kRight).rewards[0], -0.25f + 0.5f);
  EXPECT_EQ(move(env, kRight).rewards[0], -0.25f + 1.0f)
      << "no shaping in a step that eats";
  Board away({{2, 2}, {2, 1}}, {3, 2}, options);
  EXPECT_EQ(move(away, kUp).rewards[0], -0.25f - 0.5f);
}

TEST(Snake, EpisodesStartInTheMiddleWithTheWholeBodyOnTheBoard) {
  for (const auto [height, width, length] : {std::array{6, 6, 2}, std::array{2, 7, 7},
                                             std::array{5, 3, 5}, std::array{2, 2, 1}}) {
    Snake env(
        {.height = height, .width = width, .environments = 200, .start_length = length});
    std::set<std::array<int, 2>> steps;  // from neck to head
    for (std::int64_t e = 0; e < 200; ++e) {
      const auto snake = env.frame(e).snake;
      ASSERT_EQ(snake.size(), static_cast<std::size_t>(length));
      if (length > 1)
        steps.insert({snake[0][0] - snake[1][0], snake[0][1] - snake[1][1]});
      for (const auto& [row, col] : snake) {
        EXPECT_TRUE(row >= 0 && row < height && col >= 0 && col < width);
      }
    }
    // 200 draws miss one of four directions with probability 4 (3/4)^200 < 1e-24
    const std::size_t room = (length <= height ? 2 : 0) + (length <= width ? 2 : 0);
    EXPECT_EQ(steps.size(), length > 1 ? room : 0);
  }
}

TEST(Snake, PlanesShowTheBoard) {
  Board env({{1, 1}, {1, 2}, {2, 2}, {2, 1}}, {3, 4}, {.hints = true});
  std::vector<float> seen(env.observation_size());
  env.observe(seen);
  const auto at = [&](int row, int col, int plane) {
    return seen[(row * 5 + col) * env.planes() + plane];
  };
  EXPECT_EQ(env.planes(), kHintedPlanes);
  EXPECT_EQ(at(1, 1, kHeadPlane), 1.0f);
  EXPECT_EQ(at(3, 4, kFoodPlane), 1.0f);
  EXPECT_EQ(at(2, 1, kTailPlane), 1.0f);
  EXPECT_EQ(at(1, 1, kHeadingPlane + kLeft), 1.0f);
  EXPECT_EQ(at(1, 1, kAgePlane), 4.0f / 20) << "the head's cell is free in four steps";
  EXPECT_EQ(at(2, 1, kAgePlane), 1.0f / 20) << "the tail's in one";
  EXPECT_EQ(at(1, 1, kBlockedPlane + kRight), 1.0f) << "the neck";
  EXPECT_EQ(at(1, 1, kBlockedPlane + kDown), 0.0f) << "the tail leaves";
  EXPECT_EQ(at(1, 1, kFoodOffsetPlane), 2.0f / 4);
  EXPECT_EQ(at(1, 1, kFoodOffsetPlane + 1), 3.0f / 5);
  float body = 0;
  for (int cell = 0; cell < 20; ++cell) body += seen[cell * env.planes() + kBodyPlane];
  EXPECT_EQ(body, 4.0f);
}

// Chi-square of the first food over the free cells of a fixed start. The board is 4 x 4
// with a single-cell snake in the middle: 15 cells, 14 degrees of freedom.
TEST(Snake, FoodIsUniformOverTheFreeCells) {
  const std::int64_t n = 30000;
  Snake env({.height = 4, .width = 4, .environments = n, .start_length = 1});
  std::map<std::array<int, 2>, std::int64_t> counts;
  for (std::int64_t e = 0; e < n; ++e) ++counts[env.frame(e).food];
  EXPECT_EQ(counts.size(), 15u);
  EXPECT_EQ(counts.count({2, 2}), 0u) << "the snake's cell";
  double chi_square = 0;
  for (const auto& [cell, count] : counts)
    chi_square += std::pow(count - n / 15.0, 2) / (n / 15.0);
  // Laurent-Massart: P(X > k + 2 sqrt(k x) + 2 x) <= e^-x; k = 14, x = 14 gives 70 at
  // 8e-7. Below: P(X < 1) for 14 degrees of freedom = P(Poisson(1/2) >= 7) = 1.0e-6.
  EXPECT_LT(chi_square, 70.0);
  EXPECT_GT(chi_square, 1.0);
}

// Random actions of the test's own generator, the same for every Snake under test.
std::vector<std::int64_t> random_actions(std::mt19937& generator, std::int64_t n) {
  std::vector<std::int64_t> actions(n);
  for (std::int64_t& action : actions) action = generator() % 4;
  return actions;
}

TEST(Snake, ThreadsAndNumberOfEnvironmentsChangeNothing) {
  const SnakeOptions one{.environments = 37, .threads = 1, .seed = 9, .hints = true};
  SnakeOptions three = one, wider = one;
  three.threads = 3;
  wider.environments = 64;
  Snake a(one), b(three), c(wider);
  std::mt19937 generator(5);
  for (int i = 0; i < 500; ++i) {
    std::vector<std::int64_t> actions = random_actions(generator, 37);
    const StepResult& ra = a.step(actions);
    const StepResult& rb = b.step(actions);
    ASSERT_EQ(ra.rewards, rb.rewards) << i;
    ASSERT_EQ(ra.final_observations, rb.final_observations) << i;
    actions.resize(64, kUp);
    c.step(actions);
  }
  EXPECT_EQ(a.save(), b.save());
  for (std::int64_t e = 0; e < 37; ++e)
    EXPECT_EQ(a.frame(e).snake, c.frame(e).snake) << e;
  Snake other({.environments = 37, .seed = 10});
  EXPECT_NE(a.save(), other.save());
}

TEST(Snake, RestoreContinuesBitForBit) {
  const SnakeOptions options{.environments = 16, .seed = 3};
  Snake a(options);
  std::mt19937 generator(6);
  for (int i = 0; i < 200; ++i) a.step(random_actions(generator, 16));
  Snake b(options);
  b.restore(a.save());
  for (int i = 0; i < 300; ++i) {
    const std::vector<std::int64_t> actions = random_actions(generator, 16);
    ASSERT_EQ(a.step(actions).rewards, b.step(actions).rewards) << i;
  }
  EXPECT_EQ(a.save(), b.save());
}

TEST(Snake, DamagedStatesAreRefusedAndChangeNothing) {
  Snake env({.environments = 4, .seed = 3});
  const std::vector<std::uint8_t> good = env.save();
  std::vector<std::uint8_t> truncated(good.begin(), good.end() - 1);
  EXPECT_THROW(env.restore(truncated), std::invalid_argument);
  EXPECT_THROW(env.restore({}), std::invalid_argument);
  EXPECT_THROW(Snake({.environments = 5, .seed = 3}).restore(good),
               std::invalid_argument);
  EXPECT_THROW(Snake({.environments = 4, .seed = 4}).restore(good),
               std::invalid_argument);
  EXPECT_EQ(env.save(), good);

  std::mt19937 generator(
      8);  // any flipped bit is refused or gives a state that can be played
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::uint8_t> bad = good;
    bad[generator() % bad.size()] ^= 1u << (generator() % 8);
    Snake victim({.environments = 4, .seed = 3});
    try {
      victim.restore(bad);
    } catch (const std::invalid_argument&) {
      EXPECT_EQ(victim.save(), good);
      continue;
    }
    for (int j = 0; j < 20; ++j) victim.step(random_actions(generator, 4));
  }
}

// What holds for every board, whatever was done. Run under AddressSanitizer by the debug
// preset.
void check_board(const Snake& env, std::int64_t e) {
  const SnakeFrame frame = env.frame(e);
  const SnakeOptions& options = env.options();
  std::set<std::array<int, 2>> cells;
  for (std::size_t i = 0; i < frame.snake.size(); ++i) {
    const auto [row, col] = frame.snake[i];
    ASSERT_TRUE(row >= 0 && row < options.height && col >= 0 && col < options.width);
    ASSERT_TRUE(cells.insert({row, col}).second) << "the snake crosses itself";
    if (i == 0) continue;
    const auto [r, c] = frame.snake[i - 1];
    ASSERT_EQ(std::abs(row - r) + std::abs(col - c), 1) << "the snake is torn";
  }
  ASSERT_EQ(cells.count(frame.food), 0u);
  ASSERT_TRUE(frame.food[0] >= 0 && frame.food[1] >= 0);
  ASSERT_EQ(static_cast<std::int64_t>(cells.size()), options.start_length + frame.score);
}

TEST(Snake, InvariantsHoldUnderRandomPlay) {
  std::mt19937 generator(7);
  for (const auto [height, width, length] : {std::array{2, 2, 1}, std::array{2, 3, 2},
                                             std::array{3, 3, 3}, std::array{6, 9, 2}}) {
    Snake env({.height = height,
               .width = width,
               .environments = 8,
               .threads = 2,
               .start_length = length,
               .hints = true});
    std::vector<float> seen(env.environments() * env.observation_size());
    std::int64_t wins = 0;
    for (int i = 0; i < 2000; ++i) {
      const StepResult& result = env.step(random_actions(generator, 8));
      env.observe(seen);
      for (std::int64_t e = 0; e < 8; ++e) {
        ASSERT_NO_FATAL_FAILURE(check_board(env, e));
        ASSERT_FALSE(result.terminated[e] && result.truncated[e]);
        if (result.done(e)) wins += result.wins[e];
      }
      for (const float value : seen) ASSERT_TRUE(value >= -1.0f && value <= 1.0f);
    }
    if (height == 2 && width == 2) {
      EXPECT_GT(wins, 0) << "random play fills four cells";
    }
  }
}

// The score of random play on 6 x 6, measured with two disjoint seeds: the agreement says
// that episode statistics are those of the game and not of the seed.
TEST(Snake, RandomPlayScoresTheSameForEverySeed) {
  double mean[2], error[2];
  for (const int k : {0, 1}) {
    Snake env({.environments = 64, .seed = 100u + k});
    std::mt19937 generator(200 + k);
    double n = 0, sum = 0, squares = 0;
    for (int i = 0; i < 4000; ++i) {
      const StepResult& result = env.step(random_actions(generator, 64));
      for (std::int64_t e = 0; e < 64; ++e) {
        if (!result.done(e)) continue;
        n += 1, sum += result.scores[e], squares += std::pow(result.scores[e], 2);
      }
    }
    mean[k] = sum / n, error[k] = std::sqrt((squares / n - mean[k] * mean[k]) / n);
  }
  RecordProperty("random_score", std::to_string(mean[0]));
  std::printf("random play on 6 x 6: score %.3f +- %.3f\n", mean[0], error[0]);
  EXPECT_GT(mean[0], 0.05);
  EXPECT_LT(mean[0], 1.0);
  EXPECT_LT(std::abs(mean[0] - mean[1]),
            5 * std::hypot(error[0], error[1]));  // 5 sigma: 6e-7
}

// An exception beside threads that can still be joined would end the process.
TEST(SnakeThreads, AreRefusedWhereTheSystemHasNoneLeft) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "its shadow memory is beyond every limit";
#endif
  const auto few = [] {  // a limit on memory, in a process of its own
    rlimit limit{1u << 30, 1u << 30};
    setrlimit(RLIMIT_AS, &limit);
    try {
      Snake env({.threads = 1024});
    } catch (const std::invalid_argument& error) {
      const bool says = std::string(error.what()).find("lower env.threads") < 1000;
      std::_Exit(says ? 0 : 1);
    }
    std::_Exit(2);
  };
  EXPECT_EXIT(few(), testing::ExitedWithCode(0), "");
}

TEST(Snake, OptionsOutOfRangeAreRefusedWithTheValue) {
  const auto message = [](const SnakeOptions& options) -> std::string {
    try {
      Snake env(options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({.height = 1}), "Snake: height must be in [2, 64], got 1");
  EXPECT_EQ(message({.width = 65}), "Snake: width must be in [2, 64], got 65");
  EXPECT_NE(message({.environments = 0}), "accepted");
  EXPECT_NE(message({.threads = 0}), "accepted");
  EXPECT_NE(message({.start_length = 7}), "accepted");
  EXPECT_NE(message({.start_length = 0}), "accepted");
  EXPECT_NE(message({.starvation_steps = -1}), "accepted");
  Snake env({.environments = 2});
  EXPECT_THROW(env.step(std::vector<std::int64_t>{0}), std::invalid_argument);
  EXPECT_THROW(env.step(std::vector<std::int64_t>{0, 4}), std::invalid_argument);
  EXPECT_THROW(env.place(0, {.snake = {{0, 0}, {1, 1}}, .food = {3, 3}}),
               std::invalid_argument);
  EXPECT_THROW(env.place(0, {.snake = {{0, 0}, {0, 1}}, .food = {0, 1}}),
               std::invalid_argument);
}

}  // namespace
}  // namespace pion::lab
