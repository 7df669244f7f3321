// SPDX-License-Identifier: Apache-2.0
// From a rule's hyperparameters and a block's shape to the spectral map and the scale.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "pion/optim/matrix_step.h"

namespace pion {
namespace {

// "auto": twice the edge of white noise, where low-rank signals stood out best in trial
// runs, but at most 0.3, since narrow blocks have their edge above every direction.
constexpr double kAutomaticEdgeFactor = 2.0;
constexpr double kLargestAutomatic = 0.3;

std::string shape_text(std::int64_t rows, std::int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

SpectralMap map_of(const PionRule& rule, std::int64_t rows, std::int64_t cols) {
  SpectralMap map;
  map.normalization = rule.normalization;
  map.precision = rule.precision;
  map.sequence = rule.promotion_steps
                     ? high_pass_sequence(*rule.promotion_steps, rule.steps)
                     : cutoff_sequence(rule_cutoff(rule, rows, cols), rule.steps);
  return map;
}

SpectralMap map_of(const MuonRule& rule, std::int64_t, std::int64_t) {
  SpectralMap map;
  map.normalization = rule.normalization;
  map.precision = rule.precision;
  map.sequence = muon_sequence(rule.coefficients, rule.steps);
  map.norm_margin = muon_norm_margin(rule.coefficients);
  return map;
}

SpectralMap map_of(const LowRankMuonRule& rule, std::int64_t, std::int64_t) {
  SpectralMap map;
  map.kind = SpectralMap::Kind::kLowRank;
  map.rank = rule.rank;
  return map;
}

SpectralMap map_of(const LowPassMuonRule& rule, std::int64_t, std::int64_t) {
  SpectralMap map;
  map.kind = SpectralMap::Kind::kLowPass;
  map.cutoff = rule.cutoff;
  return map;
}

}  // namespace

double rule_cutoff(const PionRule& rule, std::int64_t rows, std::int64_t cols) {
  const double edge = 1.0 / std::sqrt(static_cast<double>(rows)) +
                      1.0 / std::sqrt(static_cast<double>(cols));
  switch (rule.cutoff.kind) {
    case Cutoff::Kind::kValue:
      return rule.cutoff.value;
    case Cutoff::Kind::kAutomatic:
      return std::max(std::min(kAutomaticEdgeFactor * edge, kLargestAutomatic),
                      smallest_cutoff(rule.steps));
    case Cutoff::Kind::kNoiseEdge: {
      const double cutoff = std::min(rule.edge_factor * edge, kLargestCutoff);
      if (cutoff < smallest_cutoff(rule.steps)) {
        throw std::invalid_argument(
            "rule_map: cutoff \"noise_edge\" must be at least " +
            std::to_string(smallest_cutoff(rule.steps)) +
            " with steps = " + std::to_string(rule.steps) + ", got " +
            std::to_string(cutoff) + " for a block " + shape_text(rows, cols) +
            "; raise steps or edge_factor, or take cutoff \"auto\"");
      }
      return cutoff;
    }
  }
  return rule.cutoff.value;
}

SpectralMap rule_map(const Rule& rule, std::int64_t rows, std::int64_t cols) {
  if (rows < 1 || cols < 1) {
    throw std::invalid_argument("rule_map: rows and cols must be positive, got " +
                                shape_text(rows, cols));
  }
  return std::visit(
      [&]<class R>(const R& r) -> SpectralMap {
        if constexpr (std::is_base_of_v<MatrixRule, R>) {
          return map_of(r, rows, cols);
        } else {
          throw std::invalid_argument(
              "rule_map: the rule must be one for matrices, got \"" +
              std::string(rule_name(rule)) + "\"");
        }
      },
      rule);
}

double rule_scale(const MatrixRule& rule, std::int64_t rows, std::int64_t cols) {
  const double m = static_cast<double>(rows), n = static_cast<double>(cols);
  switch (rule.scale) {
    case Scale::kMatchRmsAdamW:
      return 0.2 * std::sqrt(std::max(
                       m, n));  // 0.2: AdamW's usual update RMS, arXiv:2502.16982
    case Scale::kOriginal:
      return std::sqrt(std::max(1.0, m / n));
    case Scale::kSpectral:
      return std::sqrt(m / n);
    case Scale::kOfficial:
      return rule.scale_factor.value_or(2.0) * std::sqrt(std::max(m, n));  // 2.0: pion.py
    case Scale::kUnitRms:
      return rule.scale_factor.value_or(1.0);
  }
  return 1.0;
}

double half_pass_point(const QuinticSequence& sequence) {
  // the maps of Pion rise on [0, 1], so bisection finds the only crossing
  double below = 0.0, above = 1.0;
  if (evaluate(sequence, above) < 0.5) return 1.0;
  while (above - below > 1e-6) {
    const double middle = 0.5 * (below + above);
    (evaluate(sequence, middle) < 0.5 ? below : above) = middle;
  }
  return above;
}

}  // namespace pion
