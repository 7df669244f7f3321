// SPDX-License-Identifier: Apache-2.0
// Options of LibTorch parameter groups, one class a rule, with chained setters:
//
//   pion::PionOptions(1e-3).cutoff(0.3).weight_decay(0.01)
//
// Meaning, default and range of every key are in pion/optim/rule.h.
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
  explicit PionOptions(double learning_rate) { lr(learning_rate); }

  PionOptions& cutoff(double value) {
    std::get<PionRule>(rule_).cutoff = {Cutoff::Kind::kValue, value};
    return marked("cutoff");
  }
  PionOptions& cutoff(std::string_view name) {
    set("cutoff", std::string(name));
    return *this;
  }
  const Cutoff& cutoff() const { return std::get<PionRule>(rule_).cutoff; }
  PION_OPTION(double, edge_factor)
  PION_OPTION(int, promotion_steps)
  PION_OPTION(int, steps)
  PION_OPTION(Normalization, normalization)
  PION_OPTION(Precision, precision)
};

struct MuonOptions : MatrixOptions<MuonOptions, MuonRule> {
  MuonOptions() = default;
  explicit MuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(std::string, coefficients)
  PION_OPTION(int, steps)
  PION_OPTION(Normalization, normalization)
  PION_OPTION(Precision, precision)
};

struct LowRankMuonOptions : MatrixOptions<LowRankMuonOptions, LowRankMuonRule> {
  LowRankMuonOptions() = default;
  explicit LowRankMuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(std::int64_t, rank)
};

struct LowPassMuonOptions : MatrixOptions<LowPassMuonOptions, LowPassMuonRule> {
  LowPassMuonOptions() = default;
  explicit LowPassMuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(double, cutoff)
};

struct AdamWOptions : RuleOptions<AdamWOptions, AdamWRule> {
  AdamWOptions() = default;
  explicit AdamWOptions(double learning_rate) { lr(learning_rate); }
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
  explicit SgdOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(double, momentum)
  PION_OPTION(double, dampening)
  PION_OPTION(bool, nesterov)
};

#undef PION_OPTION  // of rule_options.h

}  // namespace pion
