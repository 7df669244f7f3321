// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "pion/torch/aten_watch.h"
#include "pion/torch/cpu_step.h"
#include "pion/torch/optimizer.h"
#include "pion/torch/parameter.h"

namespace pion {

// What Optimizer holds beside the base class's groups, state and defaults.
struct Optimizer::Data {
  bool has_defaults = false;
  double lr_factor = 1.0;
  bool collect = false;
  bool device_generic = false;
  AtenWatch watch;  // of steps on other devices
  std::uint64_t seed = 0;
  struct Name {
    std::string text;
    c10::weak_intrusive_ptr<c10::TensorImpl> of;  // keeps its address from others
  };
  std::unordered_map<const void*, Name> names;  // by TensorImpl
  std::function<void(const std::string&)> sink;
  std::vector<std::string> warnings;  // without a sink
  std::vector<ParameterStatistics> statistics;
  StepWorkspaces workspaces;  // of cpu_step
  std::vector<std::unique_ptr<GroupOptions>>
      checked;              // a group's options when last checked
  std::vector<Rule> rules;  // of every group, for one step

  // What set_names said, or null.
  const std::string* given_name(const torch::Tensor& parameter) const;
  // That, or "groups.G.params.I".
  std::string name(const torch::Tensor& parameter, std::size_t group,
                   std::size_t index) const;
  void warn(const std::string& message);
};

}  // namespace pion
