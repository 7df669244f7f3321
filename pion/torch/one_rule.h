// SPDX-License-Identifier: Apache-2.0
// Optimizers of one rule, with the two constructors that LibTorch's own have.
#pragma once

#include <utility>
#include <vector>

#include "pion/torch/optimizer.h"
#include "pion/torch/options.h"

namespace pion {

// An optimizer of one rule. Groups with options of another rule are refused.
template <class Options>
class OptimizerOf : public Optimizer {
 public:
  explicit OptimizerOf(std::vector<torch::Tensor> parameters,
                       const Options& defaults = {})
      : OptimizerOf(std::vector{torch::optim::OptimizerParamGroup(std::move(parameters))},
                    defaults) {}
  explicit OptimizerOf(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                       const Options& defaults = {})
      : Optimizer(same_rule(groups), defaults) {}

  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    same_rule({group});
    Optimizer::add_param_group(group);
  }

 private:
  static const std::vector<torch::optim::OptimizerParamGroup>& same_rule(
      const std::vector<torch::optim::OptimizerParamGroup>& groups) {
    for (const auto& group : groups) {
      TORCH_CHECK(
          !group.has_options() || dynamic_cast<const Options*>(&group.options()),
          "pion: every group of a one-rule optimizer must have options of its own class; "
          "use pion::Optimizer to mix rules");
    }
    return groups;
  }
};

class Pion : public OptimizerOf<PionOptions> {
  using OptimizerOf::OptimizerOf;
};
class Muon : public OptimizerOf<MuonOptions> {
  using OptimizerOf::OptimizerOf;
};
class LowRankMuon : public OptimizerOf<LowRankMuonOptions> {
  using OptimizerOf::OptimizerOf;
};
class LowPassMuon : public OptimizerOf<LowPassMuonOptions> {
  using OptimizerOf::OptimizerOf;
};
class AdamW : public OptimizerOf<AdamWOptions> {
  using OptimizerOf::OptimizerOf;
};
class Sgd : public OptimizerOf<SgdOptions> {
  using OptimizerOf::OptimizerOf;
};

}  // namespace pion
