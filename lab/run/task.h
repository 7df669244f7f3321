// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lab/files/tensor_file.h"
#include "lab/run/recipe.h"
#include "lab/run/task_info.h"
#include "pion/optim/routing.h"
#include "pion/torch/pion.h"

namespace pion::lab {

// One experiment in progress: data, model and algorithm. The run loop (lab/run) owns
// directories, checkpoints, metrics and the optimizer.
class Task {
 public:
  virtual ~Task() = default;

  virtual torch::nn::Module& model() = 0;
  // Length of the run: update i is in [0, updates()).
  virtual std::int64_t updates() const = 0;
  virtual AttentionShape attention_shape() const { return {}; }
  // Module types and names are enough for most models; a task may add routing decisions.
  virtual RoutingOptions routing_options(const Recipe& recipe) const;

  // One update: gather data, compute gradients, clip, step the optimizer (several times
  // for PPO). Returns the metrics of this update, e.g. {"env_steps": 8192,
  // "return_mean": 1.2, ...}.
  virtual Json update(std::int64_t index, Optimizer& optimizer) = 0;

  // Greedy evaluation; must not disturb the training state or its random generators.
  // Holds the key that TaskInfo::score names.
  virtual Json evaluate() = 0;

  // Something to look at, or null:
  //   {"kind": "snake_game", "frames": [...]}
  //   {"kind": "answers", "items": [{"prompt", "reference", "before": answer, "after":
  //   answer}]}, answer = {"text", "correct", "formatted", "right_unformatted"}
  virtual Json sample() { return nullptr; }

  // The trained model for other programs, below `folder`; called once, after the last
  // update. Tasks whose models no other program knows write nothing.
  virtual void export_model(const std::filesystem::path& folder) { (void)folder; }

  // Where update() changed what the optimizer's own step did: the statistics as they
  // should read.
  virtual void correct_statistics(std::vector<ParameterStatistics>& statistics) const {
    (void)statistics;
  }

  // All state besides model and optimizer: random generators, environments, running
  // statistics. After load() the next update() gives bit for bit what it would have
  // given.
  virtual void save(TensorMap& tensors, Json& state) const = 0;
  virtual void load(const TensorMap& tensors, const Json& state) = 0;

  // Told what a user should know of updates under way. Without one nobody is told.
  void set_warning_sink(std::function<void(const std::string&)> sink) {
    warning_sink_ = std::move(sink);
  }

 protected:
  void warn(const std::string& message) const {
    if (warning_sink_) warning_sink_(message);
  }

 private:
  std::function<void(const std::string&)> warning_sink_;
};

}  // namespace pion::lab
