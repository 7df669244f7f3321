// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/rule_fields.h"

#include <cmath>
#include <sstream>

#include "pion/optim/printed_bound.h"

namespace pion {

bool Range::holds(double value) const {
  if (!std::isfinite(value)) return false;
  if (low_open ? value <= low : value < low) return false;
  return !(high_open ? value >= high : value > high);
}

std::string Range::text() const {
  std::ostringstream out;
  const bool bounded_below = std::isfinite(low), bounded_above = std::isfinite(high);
  if (bounded_below && bounded_above) {
    out << "in " << (low_open ? '(' : '[') << low << ", "
        << (high > 0 ? printed_bound(high, 6, /*lower=*/false) : "0")
        << (high_open ? ')' : ']');
  } else if (bounded_below) {
    out << (low_open ? "> " : ">= ") << low;
  } else if (bounded_above) {
    out << (high_open ? "< " : "<= ") << high;
  } else {
    out << "finite";
  }
  return out.str();
}

const std::vector<Choice<Scale>>& choices(Scale) {
  static const std::vector<Choice<Scale>> names = {
      {"match_rms_adamw", Scale::kMatchRmsAdamW},
      {"original", Scale::kOriginal},
      {"spectral", Scale::kSpectral},
      {"official", Scale::kOfficial},
      {"unit_rms", Scale::kUnitRms}};
  return names;
}

const std::vector<Choice<NonFinite>>& choices(NonFinite) {
  static const std::vector<Choice<NonFinite>> names = {{"skip", NonFinite::kSkip},
                                                       {"raise", NonFinite::kRaise},
                                                       {"zero", NonFinite::kZero}};
  return names;
}

const std::vector<Choice<Normalization>>& choices(Normalization) {
  static const std::vector<Choice<Normalization>> names = {
      {"frobenius", Normalization::kFrobenius}, {"spectral", Normalization::kSpectral}};
  return names;
}

const std::vector<Choice<Precision>>& choices(Precision) {
  static const std::vector<Choice<Precision>> names = {{"fast", Precision::kFast},
                                                       {"accurate", Precision::kAccurate},
                                                       {"f32", Precision::kF32}};
  return names;
}

namespace {

constexpr Range kSteps{.low = 1, .high = 64};  // muon_sequence takes no more
constexpr const char* kLr = "learning rate; >= 0, at 0 nothing moves";
constexpr const char* kDecay = "decoupled weight decay, multiplied by lr; >= 0";
constexpr const char* kNonFinite =
    "a gradient with NaN or Inf: \"skip\" the parameter, \"raise\", or count entries as "
    "\"zero\"";
constexpr const char* kNormalization =
    "what the momentum is divided by: \"frobenius\" norm or \"spectral\" norm";
constexpr const char* kPrecision =
    "of the products: \"fast\" bf16, \"accurate\" bf16 input and f32 filter, or \"f32\"";

// `own` between what all matrix rules share.
template <class R>
std::vector<Field<R>> matrix_fields(std::vector<Field<R>> own) {
  std::vector<Field<R>> fields = {
      {"lr", kLr, &R::lr, kAtLeastZero},
      {"momentum", "averaging momentum M <- mu M + (1 - mu) G; in [0, 1)", &R::momentum,
       kBelowOne},
      {"nesterov", "direction mu M + (1 - mu) G in place of M; true or false",
       &R::nesterov},
      {"weight_decay", kDecay, &R::weight_decay, kAtLeastZero},
      {"scale",
       "update size by shape: \"match_rms_adamw\", \"original\", \"spectral\", "
       "\"official\", \"unit_rms\"",
       &R::scale},
      {"scale_factor",
       "factor of scale \"official\" (2 if absent) or \"unit_rms\" (1); > 0",
       &R::scale_factor, kAboveZero}};
  fields.insert(fields.end(), own.begin(), own.end());
  fields.push_back({"nonfinite", kNonFinite, &R::nonfinite});
  return fields;
}

}  // namespace

template <>
const std::vector<Field<PionRule>>& rule_fields() {
  using R = PionRule;
  static const std::vector<Field<R>> fields = matrix_fields<R>(
      {{"cutoff",
        "filter strength: a number in (0, 0.81649], relative to the norm, \"auto\" or "
        "\"noise_edge\"",
        &R::cutoff, Range{.low = 0, .high = kLargestCutoff, .low_open = true}},
       {"edge_factor",
        "cutoff \"noise_edge\" is edge_factor (1/sqrt(rows) + 1/sqrt(cols)); > 0",
        &R::edge_factor, kAboveZero},
       {"promotion_steps", "the published map instead of a cutoff; 0 up to steps",
        &R::promotion_steps, Range{.low = 0, .high = 64}},
       {"steps", "polynomial steps, promotions and suppressions together; in [1, 64]",
        &R::steps, kSteps},
       {"normalization", kNormalization, &R::normalization},
       {"precision", kPrecision, &R::precision}});
  return fields;
}

template <>
const std::vector<Field<MuonRule>>& rule_fields() {
  using R = MuonRule;
  static const std::vector<Field<R>> fields = matrix_fields<R>(
      {{"coefficients", "Newton-Schulz coefficients by name, see muon_sequence",
        &R::coefficients},
       {"steps", "Newton-Schulz steps; in [1, 64]", &R::steps, kSteps},
       {"normalization", kNormalization, &R::normalization},
       {"precision", kPrecision, &R::precision}});
  return fields;
}

template <>
const std::vector<Field<LowRankMuonRule>>& rule_fields() {
  using R = LowRankMuonRule;
  static const std::vector<Field<R>> fields = matrix_fields<R>(
      {{"rank", "singular values kept per block; >= 1", &R::rank, Range{.low = 1}}});
  return fields;
}

template <>
const std::vector<Field<LowPassMuonRule>>& rule_fields() {
  using R = LowPassMuonRule;
  static const std::vector<Field<R>> fields = matrix_fields<R>(
      {{"cutoff",
        "singular values below it, relative to the Frobenius norm, pass; in (0, 1]",
        &R::cutoff, Range{.low = 0, .high = 1, .low_open = true}}});
  return fields;
}

template <>
const std::vector<Field<AdamWRule>>& rule_fields() {
  using R = AdamWRule;
  static const std::vector<Field<R>> fields = {
      {"lr", kLr, &R::lr, kAtLeastZero},
      {"beta1", "average of gradients; in [0, 1)", &R::beta1, kBelowOne},
      {"beta2", "average of squared gradients; in [0, 1)", &R::beta2, kBelowOne},
      {"eps", "added to the root of the corrected second moment; > 0", &R::eps,
       kAboveZero},
      {"weight_decay", kDecay, &R::weight_decay, kAtLeastZero},
      {"nonfinite", kNonFinite, &R::nonfinite}};
  return fields;
}

template <>
const std::vector<Field<SgdRule>>& rule_fields() {
  using R = SgdRule;
  static const std::vector<Field<R>> fields = {
      {"lr", kLr, &R::lr, kAtLeastZero},
      {"momentum", "summing momentum B <- mu B + (1 - dampening) G; in [0, 1)",
       &R::momentum, kBelowOne},
      {"dampening", "1 - momentum gives the averaging form; in [0, 1]", &R::dampening,
       kUnitInterval},
      {"nesterov", "step G + mu B in place of B; true or false", &R::nesterov},
      {"weight_decay", kDecay, &R::weight_decay, kAtLeastZero},
      {"nonfinite", kNonFinite, &R::nonfinite}};
  return fields;
}

}  // namespace pion
