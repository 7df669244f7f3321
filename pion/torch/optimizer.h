// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/optim/optimizer.h>

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pion/optim/matrix_step.h"
#include "pion/torch/group_options.h"

namespace pion {

struct ParameterStep;

// What the last step did to one parameter; see Optimizer::statistics.
struct ParameterStatistics {
  std::string name;
  Rule rule;  // with the learning rate that the step used
  UpdateStatistics update;
  std::vector<UpdateStatistics> matrices;  // of a stack, as of experts: of each
};

// A torch::optim::Optimizer over pion's rules; each parameter group has its own rule:
//
//   pion::Optimizer optimizer({
//       {matrices,
//       std::make_unique<pion::PionOptions>(pion::PionOptions(1e-3).cutoff(0.3))},
//       {others, std::make_unique<pion::AdamWOptions>(pion::AdamWOptions(3e-4))}});
//
// Parameters are f32, f64 or bf16, on any device, contiguous or not; gradients are read
// only. One without a gradient is left alone, without decay; so is a matrix of a stack
// whose gradient is zero in every entry. Under a matrix rule a parameter has two
// dimensions or more (see Fold), and no two share memory. On the CPU the step runs on
// at::get_num_threads() threads and does not depend on their number; elsewhere it is made
// of ATen operations.
//
// Every error is a c10::Error. A step that throws has written nothing: values, shapes,
// types, gradients and, where NonFinite does not skip, momenta are looked at before. Two
// exceptions: a closure, and memory or a device that fails in the middle.
//
// An optimizer can be moved, and stays where its tensors are; schedulers hold a reference
// and must be made after that.
class Optimizer : public torch::optim::Optimizer {
 public:
  // Groups without options take `defaults`, those with options inherit from it the keys
  // that they do not set; without `defaults` every group must have options.
  explicit Optimizer(const std::vector<torch::optim::OptimizerParamGroup>& groups);
  Optimizer(const std::vector<torch::optim::OptimizerParamGroup>& groups,
            const GroupOptions& defaults);
  ~Optimizer() override;
  Optimizer(Optimizer&& other) noexcept;
  Optimizer& operator=(Optimizer&& other) noexcept;

  // Shadows the base class's function, which replaces options of classes that LibTorch
  // does not know by the defaults (pytorch#161825). A group added through a base
  // reference is detected and refused at the next step.
  void add_param_group(const torch::optim::OptimizerParamGroup& group);

  torch::Tensor step(LossClosure closure = nullptr) override;

  // Names for statistics, warnings, errors and state_tensors(); without them
  // "groups.0.params.3". Names of parameters that the optimizer does not hold are
  // ignored.
  void set_names(const std::vector<std::pair<std::string, torch::Tensor>>& names);

  // Multiplies every group's learning rate from now on; >= 0. For schedules that many
  // groups share.
  void set_lr_factor(double factor);
  double lr_factor() const;

  // Statistics of the last step, one entry for every parameter that it stepped. Off by
  // default; on other devices than the CPU they cost one synchronization a step.
  void collect_statistics(bool on);
  const std::vector<ParameterStatistics>& statistics() const;

  // Warnings (updates that stay empty, skipped gradients), each once a parameter. They go
  // to the sink; without one, or after set_warning_sink(nullptr), to TORCH_WARN, and wait
  // here as well. On other devices than the CPU they come a step later, as nothing waits
  // for the device, and every tenth step is asked whether its update is empty. On those
  // that are neither CUDA's nor XPU's empty updates are noticed only while statistics are
  // collected, and skipped gradients within a hundred steps.
  void set_warning_sink(std::function<void(const std::string&)> sink);
  std::vector<std::string> take_warnings();

  // Seeds stochastic rounding.
  void set_seed(std::uint64_t seed);

  // For tests: steps CPU parameters by the ATen operations of other devices.
  void force_device_generic(bool on);

  // Everything, by torch::save and torch::load: options, state, counters. A file that
  // cannot be loaded leaves the optimizer as it was.
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

  // The state alone, for checkpoints in other formats: "<name>.momentum_buffer",
  // ".exp_avg", ".exp_avg_sq", ".step", ".master" as they exist, ".counters" (warnings,
  // rounding) and "optimizer.seed". Learning rates and other options are not in it. The
  // tensors share memory with the state.
  std::map<std::string, torch::Tensor> state_tensors() const;
  // Copies. Checks names, shapes and types first and writes nothing if one is wrong.
  void load_state_tensors(const std::map<std::string, torch::Tensor>& tensors);

 private:
  struct Data;

  void check_new(const torch::optim::OptimizerParamGroup& group,
                 const GroupOptions& options) const;
  void check_groups();
  std::vector<ParameterStep> checked_steps();
  std::vector<ParameterStep> gather_steps(std::vector<void*>& made);
  void observe(const std::vector<ParameterStep>& steps, std::size_t on_cpu);
  void step_elsewhere(std::span<ParameterStep> steps);

  std::unique_ptr<Data> data_;
};

}  // namespace pion
