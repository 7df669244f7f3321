// SPDX-License-Identifier: Apache-2.0
#pragma once

// CONTRACT (draft; the owner of pion/torch completes it). Public surface others rely on:
//
//   pion::PionOptions(1e-3).momentum(.95).cutoff(0.3)...      chained setters, torch idiom
//   pion::MuonOptions, LowRankMuonOptions, LowPassMuonOptions, AdamWOptions, SgdOptions
//   pion::Optimizer : torch::optim::Optimizer                 any mixture of rules by group
//     Optimizer(std::vector<torch::optim::OptimizerParamGroup>)  group options of any class above
//     Tensor step(LossClosure = nullptr)
//     std::vector<ParameterStatistics> statistics()           of the last step, per parameter:
//        {std::string name; Rule rule; UpdateStatistics update;}
//     void collect_statistics(bool)                           off by default costs nothing
//     void set_warning_sink(std::function<void(const std::string&)>)
//     void set_lr_factor(double)                              multiplies every group's base lr
//     save/load through torch::save / torch::load; state_tensors()/load_state_tensors() as an
//     ordered map name -> tensor for safetensors checkpoints ("<param>.momentum_buffer", ...)
//   pion::Pion, pion::Muon, ... : pion::Optimizer             one rule, both torch constructors
//   std::vector<ParameterDescription> describe(torch::nn::Module&)
//   Routing route(torch::nn::Module&, RoutingOptions = {})
//   std::unique_ptr<Optimizer> make_optimizer(torch::nn::Module&, const Routing&)
