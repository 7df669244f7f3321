// SPDX-License-Identifier: Apache-2.0
// Options of LibTorch parameter groups, one class a rule, with chained setters:
//
//   pion::PionOptions(1e-3).cutoff(0.3).weight_decay(0.01)
//
// Meaning, default and range of every key are in pion/optim/rule.h. A learning rate alone
// will do where options are wanted, as for torch's: AdamW(parameters, 1e-3).
#pragma once

#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "pion/torch/rule_options.h"

namespace pion {

// Pion, a high-pass filter. The cutoff is a number, "auto" or "noise_edge";
// promotion_steps in its place gives the published map.
struct PionOptions : MatrixOptions<PionOptions, PionRule> {
  PionOptions() = default;
  PionOptions(double learning_rate) { lr(learning_rate); }

  PionOptions& cutoff(double value) {
    std::get<PionRule>(rule_).cutoff = {Cutoff::Kind::kValue, value};
    return marked("cutoff");
  }
  PionOptions& cutoff(std::string_view name) { return set("cutoff", std::string(name)); }
  const Cutoff& cutoff() const { return std::get<PionRule>(rule_).cutoff; }
  PION_OPTION(double, edge_factor)
  PION_OPTION(int, promotion_steps)
  PION_OPTION(int, steps)
  PION_OPTION(Normalization, normalization)
  PION_OPTION(Precision, precision)
};

struct MuonOptions : MatrixOptions<MuonOptions, MuonRule> {
  MuonOptions() = default;
  MuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(std::string, coefficients)
  PION_OPTION(int, steps)
  PION_OPTION(Normalization, normalization)
  PION_OPTION(Precision, precision)
};

struct LowRankMuonOptions : MatrixOptions<LowRankMuonOptions, LowRankMuonRule> {
  LowRankMuonOptions() = default;
  LowRankMuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(std::int64_t, rank)
};

struct LowPassMuonOptions : MatrixOptions<LowPassMuonOptions, LowPassMuonRule> {
  LowPassMuonOptions() = default;
  LowPassMuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(double, cutoff)
};

// In the place of torch::optim::AdamWOptions, whose weight decay of 0.01 it has; the rule
// "adamw" of recipes, routings and Python's groups has 0 until told otherwise.
struct AdamWOptions : RuleOptions<AdamWOptions, AdamWRule> {
  AdamWOptions() { std::get<AdamWRule>(rule_).weight_decay = 0.01; }
  AdamWOptions(double learning_rate) : AdamWOptions() { lr(learning_rate); }
  PION_OPTION(double, beta1)
  PION_OPTION(double, beta2)
  PION_OPTION(double, eps)
  AdamWOptions& betas(std::tuple<double, double> both) {
    return beta1(std::get<0>(both)).beta2(std::get<1>(both));
  }
  std::tuple<double, double> betas() const { return {beta1(), beta2()}; }
};

struct SgdOptions : RuleOptions<SgdOptions, SgdRule> {
  SgdOptions() = default;
  SgdOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(double, momentum)
  PION_OPTION(double, dampening)
  PION_OPTION(bool, nesterov)
};

#undef PION_OPTION  // of rule_options.h

}  // namespace pion
