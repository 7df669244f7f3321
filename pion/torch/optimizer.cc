// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <unordered_set>

#include "pion/torch/aten_step.h"
#include "pion/torch/optimizer_data.h"
#include "pion/torch/options.h"
#include "pion/torch/torch_error.h"

namespace pion {
namespace {

using torch::optim::OptimizerParamGroup;

const GroupOptions& options_of(const OptimizerParamGroup& group, std::string_view where) {
  const auto* options = dynamic_cast<const GroupOptions*>(&group.options());
  TORCH_CHECK(options, where,
              ": a group's options must be one of pion's classes, such as ",
              "pion::PionOptions, got another class");
  return *options;
}

struct Asked {
  const ParameterStep* step;
  bool momentum;
};

// (tensors) bool on the host: is every entry finite? One pass over each, and one wait.
at::Tensor all_finite(const std::vector<torch::Tensor>& tensors) {
  using Key = std::tuple<c10::DeviceType, c10::DeviceIndex, at::ScalarType>;
  std::map<Key, std::vector<std::int64_t>> alike;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const at::Device device = tensors[i].device();
    alike[{device.type(), device.index(), tensors[i].scalar_type()}].push_back(
        static_cast<std::int64_t>(i));
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<torch::Tensor> flags;
  std::vector<std::int64_t> order;
  for (const auto& [key, indices] : alike) {
    std::vector<torch::Tensor> own;
    for (const std::int64_t i : indices)
      own.push_back(tensors[static_cast<std::size_t>(i)]);
    const torch::Tensor finite =
        at::stack(at::_foreach_norm(own, kInfinity)).lt(kInfinity);
    flags.push_back(finite.to(tensors.front().device(), /*non_blocking=*/true));
    order.insert(order.end(), indices.begin(), indices.end());
  }
  const torch::Tensor found = at::cat(flags).cpu();
  return at::empty_like(found).index_put_({at::tensor(order)}, found);
}

// Under NonFinite::kRaise gradients are looked at before anything is written, and under
// kRaise and kZero momenta that no step has left behind: one synchronization, and none
// without such a group.
void check_finite(const std::vector<ParameterStep>& steps) {
  std::vector<torch::Tensor> tensors;
  std::vector<Asked> asked;
  for (const ParameterStep& step : steps) {
    const NonFinite policy = nonfinite_policy(*step.rule);
    if (policy == NonFinite::kRaise) {
      tensors.push_back(step.gradient);
      asked.push_back({&step, false});
    }
    if (policy != NonFinite::kSkip && is_matrix_rule(*step.rule) &&
        !step.state->momentum_is_finite) {
      tensors.push_back(step.state->momentum_buffer);
      asked.push_back({&step, true});
    }
  }
  if (tensors.empty()) return;
  const torch::Tensor finite = all_finite(tensors);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const bool sound = finite.const_data_ptr<bool>()[i];
    TORCH_CHECK(sound || !asked[i].momentum,
                "step: the momentum must be finite, got NaN or Inf in that of ",
                asked[i].step->name,
                "; nothing was written. Load another state, or restart it from zeros");
    TORCH_CHECK(sound, "step: every gradient must be finite, got NaN or Inf ",
                "in that of ", asked[i].step->name, "; nothing was written. To go on ",
                "without such parameters, set nonfinite to NonFinite::kSkip");
  }
}

}  // namespace

const std::string* Optimizer::Data::given_name(const torch::Tensor& parameter) const {
  const auto found = names.find(parameter.unsafeGetTensorImpl());
  return found == names.end() ? nullptr : &found->second.text;
}

std::string Optimizer::Data::name(const torch::Tensor& parameter, std::size_t group,
                                  std::size_t index) const {
  if (const std::string* given = given_name(parameter)) return *given;
  return "groups." + std::to_string(group) + ".params." + std::to_string(index);
}

void Optimizer::Data::warn(const std::string& message) {
  if (sink) return sink(message);
  TORCH_WARN(message);
  warnings.push_back(message);
}

// The base class insists on defaults; without any, groups must bring options and these
// are not inherited.
Optimizer::Optimizer(const std::vector<OptimizerParamGroup>& groups)
    : torch::optim::Optimizer(std::vector<OptimizerParamGroup>{},
                              std::make_unique<PionOptions>()),
      data_(std::make_unique<Data>()) {
  for (const OptimizerParamGroup& group : groups) add_param_group(group);
}

Optimizer::Optimizer(const std::vector<OptimizerParamGroup>& groups,
                     const GroupOptions& defaults)
    : torch::optim::Optimizer(std::vector<OptimizerParamGroup>{}, defaults.clone()),
      data_(std::make_unique<Data>()) {
  defaults.check("pion::Optimizer");
  static_cast<GroupOptions&>(*defaults_).adopted_ = false;
  data_->has_defaults = true;
  for (const OptimizerParamGroup& group : groups) add_param_group(group);
}

Optimizer::~Optimizer() = default;
Optimizer::Optimizer(Optimizer&&) noexcept = default;

// the base class has no move assignment
Optimizer& Optimizer::operator=(Optimizer&& other) noexcept {
  param_groups_ = std::move(other.param_groups_);
  state_ = std::move(other.state_);
  defaults_ = std::move(other.defaults_);
  data_ = std::move(other.data_);
  return *this;
}

void Optimizer::add_param_group(const OptimizerParamGroup& group) {
  const auto& defaults = static_cast<const GroupOptions&>(*defaults_);
  TORCH_CHECK(group.has_options() || data_->has_defaults,
              "add_param_group: a group must have ",
              "options because the optimizer was made without defaults, got none");
  std::unique_ptr<torch::optim::OptimizerOptions> cloned =
      group.has_options() ? options_of(group, "add_param_group").clone()
                          : defaults.clone();
  auto& options = static_cast<GroupOptions&>(*cloned);
  if (data_->has_defaults) options.inherit(defaults);
  options.check("add_param_group");

  check_new(group, options);
  torch::optim::Optimizer::add_param_group(
      group);  // keeps the parameters, drops the options
  options.adopted_ = true;
  param_groups_.back().set_options(std::move(cloned));
}

void Optimizer::check_new(const OptimizerParamGroup& group,
                          const GroupOptions& options) const {
  std::vector<torch::Tensor> all;
  std::vector<std::string> names;
  std::unordered_set<const void*> held;
  const auto add = [&](const torch::Tensor& parameter, std::size_t g, std::size_t i) {
    all.push_back(parameter);
    names.push_back(data_->name(parameter, g, i));
    return held.insert(parameter.unsafeGetTensorImpl()).second;
  };
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    const auto& params = param_groups_[g].params();
    for (std::size_t i = 0; i < params.size(); ++i) add(params[i], g, i);
  }
  for (std::size_t i = 0; i < group.params().size(); ++i) {
    const torch::Tensor& parameter = group.params()[i];
    const bool fresh = add(parameter, param_groups_.size(), i);
    TORCH_CHECK(fresh, "add_param_group: a parameter must be in one group only, got ",
                names.back(), " again");
    check_parameter(parameter, options, names.back());
  }
  check_apart(all, names, "add_param_group");
}

void Optimizer::check_groups() {
  data_->checked.resize(param_groups_.size());
  data_->rules.clear();
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    const GroupOptions& options = options_of(param_groups_[g], "step");
    TORCH_CHECK(
        options.adopted_, "step: every group must join through ",
        "pion::Optimizer::add_param_group, got group ", g, ", which came through a ",
        "reference to torch::optim::Optimizer: LibTorch then drops its options. Remove "
        "it ",
        "(optimizer.param_groups().pop_back()) and add it to the object by its own "
        "type, ",
        "such as dynamic_cast<pion::Optimizer&>(optimizer).add_param_group(group)");
    Rule rule = options.rule();
    set_learning_rate(rule, learning_rate(rule) * data_->lr_factor);
    data_->rules.push_back(std::move(rule));
    // options may be changed between steps; a new rate alone needs no new check of the
    // shapes
    auto& checked = data_->checked[g];
    if (checked) checked->set_lr(options.get_lr());
    options.check("step");
    if (checked && *checked == options) continue;
    for (std::size_t i = 0; i < param_groups_[g].params().size(); ++i) {
      const torch::Tensor& parameter = param_groups_[g].params()[i];
      check_parameter(parameter, options, data_->name(parameter, g, i));
    }
    checked.reset(static_cast<GroupOptions*>(options.clone().release()));
  }
}

// Everything that a step can refuse is refused here; state made for it is forgotten then.
std::vector<ParameterStep> Optimizer::checked_steps() {
  std::vector<void*> made;
  try {
    std::vector<ParameterStep> steps = gather_steps(made);
    check_finite(steps);
    for (const ParameterStep& step : steps) ++step.state->rounds;
    return steps;
  } catch (...) {
    for (void* const key : made) state_.erase(key);
    throw;
  }
}

std::vector<ParameterStep> Optimizer::gather_steps(std::vector<void*>& made) {
  std::vector<ParameterStep> steps;
  std::uint64_t ordinal = 0;
  for (std::size_t g = 0; g < param_groups_.size(); ++g) {
    const auto& options = static_cast<const GroupOptions&>(param_groups_[g].options());
    for (std::size_t i = 0; i < param_groups_[g].params().size(); ++i, ++ordinal) {
      const torch::Tensor& parameter = param_groups_[g].params()[i];
      if (!parameter.grad().defined() || parameter.numel() == 0) continue;
      std::string name = data_->name(parameter, g, i);
      check_gradient(parameter, name);
      void* const key = parameter.unsafeGetTensorImpl();
      auto found = state_.find(key);
      if (found == state_.end()) {
        // parameters appended to a group since it was checked come by here
        check_parameter(parameter, options, name);
        found = state_.emplace(key, std::make_unique<ParameterState>()).first;
        made.push_back(key);
      }
      auto& own = static_cast<ParameterState&>(*found->second);
      move_state(own, parameter);
      check_state(own, parameter, name);
      fill_state(own, parameter, options);
      steps.push_back({std::move(name),
                       parameter,
                       parameter.grad(),
                       &own,
                       &options,
                       &data_->rules[g],
                       rounding_seed(data_->seed, ordinal, own.rounds),
                       {}});
    }
  }
  return steps;
}

torch::Tensor Optimizer::step(LossClosure closure) {
  torch::Tensor loss;
  if (closure) {
    const at::AutoGradMode enable_grad(true);
    loss = closure();
  }
  check_groups();
  const at::NoGradGuard no_grad;
  std::vector<ParameterStep> steps = checked_steps();
  const auto on_cpu = [&](const ParameterStep& step) {
    return step.parameter.device().is_cpu() && !data_->device_generic;
  };
  const auto elsewhere = std::stable_partition(steps.begin(), steps.end(), on_cpu);
  with_torch_errors([&] {
    cpu_step({steps.begin(), elsewhere}, data_->collect, data_->workspaces);
    step_elsewhere({elsewhere, steps.end()});
  });
  observe(steps, static_cast<std::size_t>(elsewhere - steps.begin()));
  return loss;
}

void Optimizer::step_elsewhere(std::span<ParameterStep> steps) {
  if (steps.empty()) return;
  const auto state_of = [&](const void* key) -> ParameterState* {
    const auto found = state_.find(const_cast<void*>(key));
    return found == state_.end() ? nullptr
                                 : static_cast<ParameterState*>(found->second.get());
  };
  for (const std::string& message : data_->watch.read(state_of)) data_->warn(message);
  const std::vector<PassedRows> passed = aten_step(steps, data_->collect);
  if (!data_->collect) data_->watch.record(steps, passed);
  for (const ParameterStep& step : steps) {
    // check_finite has seen it, and a finite gradient keeps it so
    if (nonfinite_policy(*step.rule) != NonFinite::kSkip)
      step.state->momentum_is_finite = true;
  }
}

// Warnings and statistics. Those of other devices exist only when they are collected;
// else the watch has read of the step before what there is to warn of.
void Optimizer::observe(const std::vector<ParameterStep>& steps, std::size_t on_cpu) {
  data_->statistics.clear();
  const std::size_t known = data_->collect ? steps.size() : on_cpu;
  for (std::size_t i = 0; i < known; ++i) {
    const ParameterStep& step = steps[i];
    if (data_->collect) {
      data_->statistics.push_back({step.name, *step.rule, step.result, step.matrices});
    }
    ParameterState& state = *step.state;
    const std::string warning =
        state.watch.observe(step.name, *step.rule, step.result, step.matrices);
    if (!warning.empty()) data_->warn(warning);
    if (step.result.skipped && !state.warned_of_skip) {
      state.warned_of_skip = true;
      const bool finite = at::isfinite(step.gradient).all().item<bool>();
      data_->warn("step: the " + std::string(finite ? "state" : "gradient") + " of " +
                  step.name + " holds NaN or Inf; the parameter was " +
                  "skipped, and will be whenever this happens again. Lower the learning "
                  "rate or " +
                  "look for a division by zero");
    }
  }
}

void Optimizer::set_names(
    const std::vector<std::pair<std::string, torch::Tensor>>& names) {
  for (const auto& [name, parameter] : names) {
    data_->names.insert_or_assign(
        parameter.unsafeGetTensorImpl(),
        Data::Name{
            name, c10::weak_intrusive_ptr<c10::TensorImpl>(parameter.getIntrusivePtr())});
  }
}

void Optimizer::set_lr_factor(double factor) {
  TORCH_CHECK(std::isfinite(factor) && factor >= 0,
              "set_lr_factor: the factor must be finite and >= 0, got ", factor);
  data_->lr_factor = factor;
}

double Optimizer::lr_factor() const { return data_->lr_factor; }

void Optimizer::collect_statistics(bool on) {
  data_->collect = on;
  if (!on) data_->statistics.clear();
}

const std::vector<ParameterStatistics>& Optimizer::statistics() const {
  return data_->statistics;
}

void Optimizer::set_warning_sink(std::function<void(const std::string&)> sink) {
  data_->sink = std::move(sink);
}

std::vector<std::string> Optimizer::take_warnings() {
  return std::exchange(data_->warnings, {});
}

void Optimizer::set_seed(std::uint64_t seed) { data_->seed = seed; }

void Optimizer::force_device_generic(bool on) { data_->device_generic = on; }

}  // namespace pion
