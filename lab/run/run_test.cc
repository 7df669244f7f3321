// SPDX-License-Identifier: Apache-2.0
#include "lab/run/run.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include "lab/files/interrupt.h"
#include "lab/files/tensor_file.h"
#include "lab/files/thread_limit.h"
#include "lab/run/checkpoint.h"
#include "lab/run/compare.h"
#include "lab/run/run_directory.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

constexpr char kRunRecipe[] =
    "task = \"planted_regression\"\ncheckpoint_every = 5\n[planted]\nwidth = 8\nrank = "
    "2\nsteps = 20\n"
    "[optimizer]\nschedule = \"linear\"\n";

class RunTest : public testing::Test {
 protected:
  ~RunTest() override { fs::remove_all(directory_); }
  RunOptions options(const char* name, bool resume = false) const {
    return {.out = directory_ / name,
            .resume = resume,
            .quiet = true,
            .report = false,
            .command = "test"};
  }
  static std::vector<Json> lines(const fs::path& path) {
    std::vector<Json> found;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) found.push_back(Json::parse(line));
    return found;
  }
  fs::path directory_ =
      fs::temp_directory_path() / ("pion_run_" + std::to_string(::getpid()));
};

TEST_F(RunTest, LeavesEverythingThatTheAgreementNames) {
  const Recipe recipe = Recipe::parse(kRunRecipe, "r.toml");
  const RunOutcome outcome = train(recipe, options("a"));
  EXPECT_TRUE(outcome.complete);
  EXPECT_EQ(outcome.step, 20);
  const RunPaths paths{directory_ / "a"};
  EXPECT_EQ(Recipe::load(paths.recipe().string()).to_toml(), recipe.to_toml());
  EXPECT_EQ(checkpoint_steps(paths.checkpoints()), (std::vector<std::int64_t>{15, 20}));
  std::ifstream result_file(paths.result());
  const Json result = Json::parse(result_file);
  EXPECT_EQ(result["status"], "complete");
  EXPECT_EQ(result["score"].get<double>(), outcome.score);
  EXPECT_EQ(Json::parse(std::ifstream(paths.environment()))["threads"], 1);
  EXPECT_EQ(Routing::from_toml(
                (std::stringstream() << std::ifstream(paths.routing()).rdbuf()).str())
                .routes.size(),
            1u);
  std::map<std::string, int> kinds;
  for (const Json& line : lines(paths.metrics()))
    ++kinds[line["kind"].get<std::string>()];
  EXPECT_EQ(kinds["update"], 20);
  EXPECT_EQ(kinds["optimizer"], 20);
  EXPECT_EQ(kinds["evaluation"], 11);  // at 0, 2, 4, ... 18 and at the end
  EXPECT_EQ(evaluate_run(paths.root, {})["metrics"], result["metrics"]);
}

TEST_F(RunTest, ResumingFromAnyCheckpointRepeatsTheRestBitForBit) {
  const Recipe recipe = Recipe::parse(kRunRecipe, "r.toml");
  train(recipe, options("a"));
  const RunPaths whole{directory_ / "a"};
  fs::copy(whole.root, directory_ / "b", fs::copy_options::recursive);
  const RunPaths cut{directory_ / "b"};
  fs::remove(cut.result());
  fs::remove_all(cut.checkpoints() / "step_20");
  const RunOutcome outcome = train(resumed_recipe(cut.root, {}), options("b", true));
  EXPECT_TRUE(outcome.complete);
  const TensorMap a = read_tensors(whole.checkpoints() / "step_20" / "model.safetensors");
  const TensorMap b = read_tensors(cut.checkpoints() / "step_20" / "model.safetensors");
  for (const auto& [name, tensor] : a)
    EXPECT_TRUE(torch::equal(tensor, b.at(name))) << name;
  // and says the same about it, once
  std::vector<Json> left = lines(whole.metrics()), right = lines(cut.metrics());
  std::erase_if(right, [](const Json& line) { return line["kind"] == "resume"; });
  ASSERT_EQ(left.size(), right.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    left[i].erase("wall_seconds"), right[i].erase("wall_seconds");
    EXPECT_EQ(left[i], right[i]);
  }
}

TEST_F(RunTest, ADirectoryInUseOrThereAlreadyIsRefused) {
  const Recipe recipe = Recipe::parse(kRunRecipe, "r.toml");
  train(recipe, options("a"));
  EXPECT_THROW(train(recipe, options("a")), std::invalid_argument);
  EXPECT_TRUE(train(recipe, options("a", true)).complete);  // complete already
  const RunLock lock(directory_ / "b");
  EXPECT_THROW(train(recipe, options("b", true)), std::invalid_argument);
}

TEST_F(RunTest, AnErrorLeavesItsReason) {
  // snake sets its own schedule: the run loop says so when it sees it
  const Recipe recipe = Recipe::parse(
      "task = \"snake\"\ntotal_timesteps = 512\neval_episodes = 1\n[env]\nheight = "
      "4\nwidth = 4\nenvironments = 8\n[model]\nd_model = 16\nnum_layers = 1\nnum_heads "
      "= 2\npatch = 2\n[ppo]\nhorizon = 16\nanneal_lr = true\n[optimizer]\nschedule = "
      "\"cosine\"\n",
      "r.toml");
  EXPECT_THROW(train(recipe, options("a")), std::invalid_argument);
  const Json last = lines(RunPaths{directory_ / "a"}.metrics()).back();
  EXPECT_EQ(last["kind"], "error");
  EXPECT_NE(last["message"].get<std::string>().find("its own learning-rate schedule"),
            std::string::npos);
}

// The second start waits for the first, which has written by then.
TEST_F(RunTest, TheLaterOfTwoStartsIsRefused) {
  const fs::path file = directory_ / "r.toml";
  fs::create_directories(directory_);
  std::ofstream(file) << kRunRecipe;
  const auto compare_here = [&] {
    compare({.recipe_file = file.string(), .flags = {}, .out = directory_ / "c"});
  };
  const auto train_here = [&] {
    train(Recipe::parse(kRunRecipe, "r.toml"), options("t"));
  };
  for (const auto& [name, start] :
       {std::pair<const char*, std::function<void()>>{"t", train_here},
        {"c", compare_here}}) {
    std::optional<RunLock> first(directory_ / name);
    std::string message;
    std::thread second([&, start = start] {
      try {
        start();
      } catch (const std::invalid_argument& error) {
        message = error.what();
      }
    });
    // the second has found an empty directory and tries its lock for 3 s
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    std::ofstream(directory_ / name / "recipe.toml") << "first";
    first.reset();
    second.join();
    EXPECT_NE(message.find("exists; continue it with --resume"), std::string::npos)
        << name << ": " << message;
    std::string left;
    std::getline(std::ifstream(directory_ / name / "recipe.toml") >> std::ws, left);
    EXPECT_EQ(left, "first");
  }
}

// What a kill between the end of a run and its report leaves.
TEST_F(RunTest, ACompleteRunWithoutItsReportGetsItOnResume) {
  const Recipe recipe = Recipe::parse(kRunRecipe, "r.toml");
  train(recipe, options("a"));
  const RunPaths paths{directory_ / "a"};
  EXPECT_TRUE(train(recipe, options("a", true)).complete);
  EXPECT_FALSE(fs::exists(paths.report()));  // not asked for
  RunOptions asked = options("a", true);
  asked.report = true;
  EXPECT_TRUE(train(recipe, asked).complete);
  EXPECT_TRUE(fs::exists(paths.report()));
}

TEST_F(RunTest, WhatKillsLeftIsRemovedAndNothingElse) {
  const Recipe recipe = Recipe::parse(kRunRecipe, "r.toml");
  train(recipe, options("a"));
  const RunPaths paths{directory_ / "a"};
  fs::create_directories(paths.model());
  const std::vector<fs::path> left = {
      paths.root / "result.json.tmp123", paths.root / "recipe.toml.tmp1",
      paths.model() / "config.json.tmp4194304", paths.model() / "tokenizer.json.tmp7"};
  const std::vector<fs::path> own = {paths.root / "notes.tmp",
                                     paths.root / "notes.tmp12a", paths.root / ".tmp12",
                                     paths.root / "notes.txt"};
  for (const fs::path& file : left) std::ofstream(file) << "half";
  for (const fs::path& file : own) std::ofstream(file) << "mine";
  fs::create_directories(paths.root / "folder.tmp1");
  train(recipe, options("a", true));
  for (const fs::path& file : left) EXPECT_FALSE(fs::exists(file)) << file;
  for (const fs::path& file : own) EXPECT_TRUE(fs::exists(file)) << file;
  EXPECT_TRUE(fs::exists(paths.root / "folder.tmp1"));
}

TEST_F(RunTest, ADirectoryThatWasRemovedOrRenamedIsNoticed) {
  const RunLock lock(directory_ / "a");
  EXPECT_NO_THROW(lock.check());
  fs::rename(directory_ / "a", directory_ / "b");
  EXPECT_THROW(lock.check(), std::runtime_error);
  fs::create_directories(directory_ / "a");  // another one of its name
  EXPECT_THROW(lock.check(), std::runtime_error);
  fs::remove(directory_ / "a");
  fs::rename(directory_ / "b", directory_ / "a");
  EXPECT_NO_THROW(lock.check());
  fs::remove(directory_ / "a");
  EXPECT_THROW(lock.check(), std::runtime_error);
}

TEST_F(RunTest, ALockIsSeenWithoutBeingTaken) {
  EXPECT_FALSE(is_locked(directory_ / "a"));
  std::optional<RunLock> lock(directory_ / "a");
  EXPECT_TRUE(is_locked(directory_ / "a"));
  lock.reset();
  EXPECT_FALSE(is_locked(directory_ / "a"));
  lock.emplace(directory_ / "a");
}

TEST(Interrupts, TheMarkIsThatOfTheOutermostGuard) {
  std::signal(SIGHUP, SIG_IGN);  // as nohup does
  {
    const InterruptGuard outer;
    for (const int signal : {SIGINT, SIGTERM}) {
      EXPECT_EQ(InterruptGuard::interrupted(), signal != SIGINT);
      {
        const InterruptGuard inner;
        std::raise(signal);
      }
      EXPECT_TRUE(InterruptGuard::interrupted());
    }
    std::raise(SIGHUP);
  }
  {
    const InterruptGuard later;
    EXPECT_FALSE(InterruptGuard::interrupted());
    std::raise(SIGHUP);
    EXPECT_FALSE(InterruptGuard::interrupted());
  }
  std::signal(SIGHUP, SIG_DFL);
  const InterruptGuard guard;
  std::raise(SIGHUP);
  EXPECT_TRUE(InterruptGuard::interrupted());
}

TEST(Threads, AreRefusedWhereTheSystemHasNoneLeft) {
  EXPECT_NO_THROW(require_threads(4, "threads"));
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "its shadow memory is beyond every limit";
#endif
  const auto few = [] {  // a limit on memory, in a process of its own
    rlimit limit{1u << 30, 1u << 30};
    setrlimit(RLIMIT_AS, &limit);
    try {
      require_threads(1024, "threads");
    } catch (const std::invalid_argument& error) {
      const std::string what = error.what();
      const bool says = what.starts_with("threads: must be a number of threads") &&
                        what.find("got 1024; it ends at ") != std::string::npos;
      std::_Exit(says ? 0 : 1);
    }
    std::_Exit(2);
  };
  EXPECT_EXIT(few(), testing::ExitedWithCode(0), "");
}

TEST(ShellWords, AreTakenByAShellAsTheyAre) {
  EXPECT_EQ(shell_word("runs/snake-1"), "runs/snake-1");
  EXPECT_EQ(shell_word("my runs/it's"), "'my runs/it'\\''s'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST_F(RunTest, FlagsOfAResumedRunMustAgreeWithIt) {
  train(Recipe::parse(kRunRecipe, "r.toml"), options("a"));
  EXPECT_NO_THROW(resumed_recipe(
      directory_ / "a", {{"planted.steps", "20"}, {"optimizer.matrices.rule", "pion"}}));
  EXPECT_THROW(resumed_recipe(directory_ / "a", {{"planted.steps", "21"}}),
               std::invalid_argument);
  EXPECT_THROW(resumed_recipe(directory_ / "a", {{"optimizer.matrices.rule", "muon"}}),
               std::invalid_argument);
}

TEST(Schedule, RisesThenFalls) {
  Recipe recipe = Recipe::parse(kRunRecipe, "r.toml");
  EXPECT_EQ(schedule_factor(recipe, 0, 20), 1.0);
  EXPECT_EQ(schedule_factor(recipe, 5, 20), 0.75);
  recipe.set("optimizer.warmup_updates", "10");
  EXPECT_EQ(schedule_factor(recipe, 4, 20), 0.5);
  EXPECT_EQ(schedule_factor(recipe, 10, 20), 1.0);
  recipe.set("optimizer.schedule", "cosine");
  recipe.set("optimizer.final_lr_factor", "0.5");
  EXPECT_DOUBLE_EQ(schedule_factor(recipe, 15, 20), 0.75);  // half-way between 1 and 0.5
  recipe.set("optimizer.schedule", "constant");
  EXPECT_EQ(schedule_factor(recipe, 19, 20), 1.0);
}

}  // namespace
}  // namespace pion::lab
