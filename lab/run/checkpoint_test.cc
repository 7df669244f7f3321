// SPDX-License-Identifier: Apache-2.0
#include "lab/run/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <sstream>

#include "lab/files/tensor_file.h"
#include "lab/run/run.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

constexpr char kShortRun[] =
    "task = \"planted_regression\"\n[planted]\nwidth = 8\nrank = 2\nbatch = 4\nsteps = "
    "20\nequal_rms = false\n"
    "[optimizer.matrices]\nrule = \"muon\"\n";

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() { fs::create_directories(directory_); }
  ~CheckpointTest() override { fs::remove_all(directory_); }

  static Experiment made() { return make_experiment(Recipe::parse(kShortRun, "r.toml")); }
  static void advance(Experiment& experiment, int from, int to) {
    for (int i = from; i < to; ++i) experiment.task->update(i, *experiment.optimizer);
  }
  void save(Experiment& experiment, int step, int keep = 100) {
    save_checkpoint(directory_, {"planted_regression", step, 0, 1.5}, *experiment.task,
                    *experiment.optimizer, keep);
  }
  fs::path at(int step) const { return directory_ / ("step_" + std::to_string(step)); }
  // Everything that a checkpoint's loading can throw, as text.
  std::string message(int step, Experiment& experiment) const {
    try {
      load_checkpoint(read_checkpoint(at(step), "planted_regression"), *experiment.task,
                      *experiment.optimizer);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "loaded";
  }

  fs::path directory_ =
      fs::temp_directory_path() / ("pion_checkpoint_" + std::to_string(::getpid()));
};

bool equal_models(Experiment& a, Experiment& b) {
  const TensorMap left = module_tensors(a.task->model()),
                  right = module_tensors(b.task->model());
  for (const auto& [name, tensor] : left)
    if (!torch::equal(tensor, right.at(name))) return false;
  return left.size() == right.size();
}

void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

TEST_F(CheckpointTest, ContinuesBitForBit) {
  Experiment straight = made();
  advance(straight, 0, 7);
  save(straight, 7);
  advance(straight, 7, 20);
  Experiment resumed = made();
  torch::rand({3});  // the generators must come from the checkpoint
  load_checkpoint(read_checkpoint(at(7), "planted_regression"), *resumed.task,
                  *resumed.optimizer);
  EXPECT_FALSE(equal_models(straight, resumed));
  advance(resumed, 7, 20);
  EXPECT_TRUE(equal_models(straight, resumed));
}

TEST_F(CheckpointTest, KeepsTheNewestAndCleansUnfinishedOnes) {
  Experiment experiment = made();
  for (const int step : {1, 2, 10}) save(experiment, step, 2);
  EXPECT_EQ(checkpoint_steps(directory_), (std::vector<std::int64_t>{2, 10}));
  fs::create_directories(directory_ / ".unfinished_11");
  write(directory_ / ".unfinished_11" / "model.safetensors", "half");
  fs::create_directories(directory_ / "step_x");  // not ours
  EXPECT_EQ(checkpoint_steps(directory_), (std::vector<std::int64_t>{2, 10}));
  clean_checkpoints(directory_);
  EXPECT_FALSE(fs::exists(directory_ / ".unfinished_11"));
  EXPECT_TRUE(fs::exists(directory_ / "step_x"));
  save(experiment, 10, 2);  // once more
  EXPECT_EQ(checkpoint_steps(directory_), (std::vector<std::int64_t>{2, 10}));
}

TEST_F(CheckpointTest, IsNotSavedThroughALink) {
  Experiment experiment = made();
  const fs::path link = directory_ / "checkpoints", elsewhere = directory_ / "elsewhere";
  fs::create_directories(elsewhere);
  fs::create_directory_symlink(elsewhere, link);
  EXPECT_THROW(save_checkpoint(link, {"planted_regression", 1, 0, 1.5}, *experiment.task,
                               *experiment.optimizer, 2),
               std::runtime_error);
  EXPECT_TRUE(fs::is_empty(elsewhere));
}

TEST_F(CheckpointTest, DamageIsNamedWithFileAndRemedy) {
  Experiment experiment = made();
  advance(experiment, 0, 1);
  save(experiment, 1);
  for (const char* name :
       {"model.safetensors", "optimizer.safetensors", "task.safetensors", "state.json"}) {
    save(experiment, 2);
    const fs::path file = at(2) / name;
    const std::string whole = read(file);
    for (const std::size_t length :
         {std::size_t{0}, std::size_t{5}, whole.size() / 2, whole.size() - 3}) {
      write(file, whole.substr(0, length));
      const std::string text = message(2, experiment);
      EXPECT_NE(text.find(file.string()), std::string::npos) << length << " " << text;
      EXPECT_NE(text.find("; remove " + at(2).string() + " to resume from step 1"),
                std::string::npos)
          << text;
    }
    fs::remove(file);
    EXPECT_NE(message(2, experiment).find(file.string()), std::string::npos) << name;
    write(file, whole);
    EXPECT_EQ(message(2, experiment), "loaded");
  }
}

TEST_F(CheckpointTest, AForeignCheckpointIsRefusedAndNothingIsLoaded) {
  Experiment experiment = made();
  save(experiment, 1);
  Experiment wider = make_experiment(Recipe::parse(
      "task = \"planted_regression\"\n[planted]\nwidth = 9\nrank = 2\n", "r.toml"));
  const TensorMap own = module_tensors(wider.task->model());
  const torch::Tensor before = own.begin()->second.clone();
  EXPECT_NE(message(1, wider).find("it is of another model"), std::string::npos)
      << message(1, wider);
  EXPECT_TRUE(torch::equal(before, own.begin()->second));
  EXPECT_THROW(read_checkpoint(at(1), "snake"), std::invalid_argument);
  fs::rename(at(1), at(3));
  EXPECT_NE(message(3, experiment).find("is of step 1"), std::string::npos);
}

TEST_F(CheckpointTest, StateSurvivesMutations) {
  Experiment experiment = made();
  save(experiment, 1);
  const std::string valid = read(at(1) / "state.json");
  const std::string spice = "0123456789[]{}\",:-e.\\ nul\xff";
  std::mt19937 random(20261122);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = valid;
    for (unsigned change = random() % 4 + 1; change > 0; --change) {
      const std::size_t place = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[place] = spice[random() % spice.size()];
          break;
        case 1:
          text.erase(place, random() % 6 + 1);
          break;
        default:
          text.insert(place, text.substr(random() % text.size(), random() % 24));
          break;
      }
    }
    try {
      parse_checkpoint_state(text, "state.json");
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
  EXPECT_THROW(parse_checkpoint_state(std::string(1 << 20, '['), "state.json"),
               std::invalid_argument);
}

TEST_F(CheckpointTest, EveryElementTypeComesBack) {
  TensorMap tensors;
  for (const torch::ScalarType type :
       {torch::kBool, torch::kUInt8, torch::kInt32, torch::kInt64, torch::kFloat16,
        torch::kBFloat16, torch::kFloat32, torch::kFloat64})
    tensors[torch::toString(type)] = torch::randint(0, 2, {3, 2}).to(type);
  tensors["transposed"] = torch::rand({4, 3}).t();
  tensors["scalar"] = torch::tensor(2.5);
  tensors["empty"] = torch::empty({0, 2});
  write_tensors(directory_ / "t.safetensors", tensors);
  const TensorMap back = read_tensors(directory_ / "t.safetensors");
  ASSERT_EQ(back.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(back.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(torch::equal(back.at(name), tensor)) << name;
  }
}

}  // namespace
}  // namespace pion::lab
