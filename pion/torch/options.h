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
#include <vector>

#include "pion/torch/group_options.h"

namespace pion {

// A key of the rule: name(value) sets and marks it, name() reads it.
#define PION_OPTION(type, name)                           \
  Self& name(type value) {                                \
    std::get<Values>(this->rule_).name = std::move(value); \
    return this->marked(#name);                           \
  }                                                       \
  const decltype(Values::name)& name() const { return std::get<Values>(this->rule_).name; }

// The setters that all rules share; Derived is the class that users name.
template <class Derived, class RuleType>
class RuleOptions : public GroupOptions {
 public:
  using Self = Derived;
  using Values = RuleType;
  RuleOptions() : GroupOptions(RuleType{}) {}

  PION_OPTION(double, lr)
  PION_OPTION(double, weight_decay)
  PION_OPTION(NonFinite, nonfinite)

  using GroupOptions::low_precision;
  using GroupOptions::maximize;
  Self& low_precision(LowPrecision value) {
    low_precision_ = value;
    return marked("low_precision");
  }
  Self& maximize(bool value) {  // steps along the gradient, not against it
    maximize_ = value;
    return marked("maximize");
  }
  std::unique_ptr<torch::optim::OptimizerOptions> clone() const override {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }

 protected:
  Self& marked(std::string_view key) {
    mark(key);
    return static_cast<Self&>(*this);
  }
};

// The setters of rules for matrices. heads(8) cuts the output rows in 8 blocks, with
// head_axis(1) the input columns; a fused QKV has split_sizes({512, 128, 128}) and
// split_heads({8, 2, 2}).
template <class Derived, class RuleType>
class MatrixOptions : public RuleOptions<Derived, RuleType> {
 public:
  using Self = Derived;
  using Values = RuleType;

  PION_OPTION(double, momentum)
  PION_OPTION(bool, nesterov)
  PION_OPTION(Scale, scale)
  PION_OPTION(double, scale_factor)

  using GroupOptions::fold;
  Self& fold(Fold value) {
    this->fold_ = value;
    return this->marked("fold");
  }
  Self& heads(std::int64_t count) { return split_heads({count}); }
  Self& head_axis(int axis) {
    this->layout_.axis = axis;
    return this->marked("head_axis");
  }
  Self& split_sizes(std::vector<std::int64_t> sizes) {
    this->layout_.sizes = std::move(sizes);
    return this->marked("split_sizes");
  }
  Self& split_heads(std::vector<std::int64_t> heads) {
    this->layout_.heads = std::move(heads);
    return this->marked("heads");
  }
};

// Pion, a high-pass filter. The cutoff is a number, "auto" or "noise_edge"; promotion_steps in
// its place gives the published map.
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
};

struct MuonOptions : MatrixOptions<MuonOptions, MuonRule> {
  MuonOptions() = default;
  explicit MuonOptions(double learning_rate) { lr(learning_rate); }
  PION_OPTION(std::string, coefficients)
  PION_OPTION(int, steps)
  PION_OPTION(Normalization, normalization)
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

#undef PION_OPTION

}  // namespace pion
