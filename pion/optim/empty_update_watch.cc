// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/empty_update_watch.h"

#include <algorithm>
#include <cstdio>

#include "pion/optim/matrix_step.h"
#include "pion/optim/printed_bound.h"
#include "pion/spectral/coefficients.h"

namespace pion {
namespace {

std::string short_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// The fewest promotions whose filter lets `sigma` (relative to the norm) pass; -1 if none
// does.
int promotions_that_pass(double sigma, int steps) {
  for (int promotions = 0; promotions <= steps; ++promotions) {
    if (half_pass_point(high_pass_sequence(promotions, steps)) < sigma) return promotions;
  }
  return -1;
}

std::string present_filter(const PionRule& rule, const UpdateStatistics& what) {
  std::string text;
  if (rule.promotion_steps) {
    text = "promotion_steps = " + std::to_string(*rule.promotion_steps) + " of " +
           std::to_string(rule.steps);
  } else {
    switch (rule.cutoff.kind) {
      case Cutoff::Kind::kAutomatic:
        text = "cutoff = \"auto\"";
        break;
      case Cutoff::Kind::kNoiseEdge:
        text = "cutoff = \"noise_edge\"";
        break;
      case Cutoff::Kind::kValue:
        text = "cutoff = " + short_text(rule.cutoff.value);
        break;
    }
  }
  text += " passes singular values above " + short_text(what.half_pass) + " of the norm";
  if (what.sigma_max > 0) text += "; the largest here is " + short_text(what.sigma_max);
  return text;
}

std::string remedy(const PionRule& rule, const UpdateStatistics& what) {
  // without spectrum statistics: half the threshold
  const double wanted = what.sigma_max > 0 ? 0.8 * what.sigma_max : 0.5 * what.half_pass;
  const double cutoff = std::max(wanted, smallest_cutoff(rule.steps));
  const int promotions =
      promotions_that_pass(what.sigma_max > 0 ? what.sigma_max : wanted, rule.steps);
  std::string text = "Lower cutoff to " + printed_bound(cutoff, 3, /*lower=*/true);
  if (wanted < cutoff)
    text += " (the least that steps = " + std::to_string(rule.steps) + " reaches)";
  if (promotions >= 0) text += " or set promotion_steps = " + std::to_string(promotions);
  return text + ", or give this parameter to muon if everything in it should move.";
}

// The matrices whose count has come so far, of a stack: ", matrices 2, 5 of 8".
std::string numbers_of(std::span<const int> counts, int least) {
  constexpr std::size_t kMost = 12;  // that are named
  std::string text;
  std::size_t found = 0;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (counts[k] < least || ++found > kMost) continue;
    text += (found == 1 ? "" : ", ") + std::to_string(k);
  }
  if (found > kMost) text += " and " + std::to_string(found - kMost) + " more";
  return (found == 1 ? ", matrix " : ", matrices ") + text + " of " +
         std::to_string(counts.size()) + " (from 0)";
}

}  // namespace

double empty_below(const Rule& rule) {
  const auto* muon = std::get_if<MuonRule>(&rule);
  if (muon == nullptr) return 0.5;
  const QuinticSequence sequence = muon_sequence(muon->coefficients, muon->steps);
  const double top = 1.0 / muon_norm_margin(muon->coefficients);
  constexpr int kPoints = 256;  // f is smooth, and half of the least leaves room
  double least = 1.0;
  for (int i = 1; i <= kPoints; ++i) {
    const double part = static_cast<double>(i) / kPoints;
    least = std::min(least, evaluate(sequence, part * top) / part);
  }
  return 0.5 * least * least;
}

std::string EmptyUpdateWatch::observe(std::string_view parameter, const Rule& rule,
                                      const UpdateStatistics& last,
                                      std::span<const UpdateStatistics> matrices) {
  if (!is_matrix_rule(rule)) return "";
  const bool stack = matrices.size() > 1;
  const auto watched = stack ? matrices : std::span(&last, 1);
  counts_.resize(watched.size(), consecutive_);
  const UpdateStatistics* worst = nullptr;  // of those that this step left empty
  int most = 0;
  for (std::size_t k = 0; k < watched.size(); ++k) {
    const UpdateStatistics& one = watched[k];
    if (one.skipped || one.gradient_norm == 0) continue;
    const bool empty =
        one.directions_passed < 0.5 && one.directions_passed < empty_below(rule);
    counts_[k] = empty ? counts_[k] + 1 : 0;
    if (counts_[k] > most) most = counts_[k], worst = &one;
  }
  consecutive_ = *std::max_element(counts_.begin(), counts_.end());
  if (warned_ || most < patience_) return "";
  warned_ = true;
  const UpdateStatistics& what = *worst;
  std::string text =
      std::string(parameter) + (stack ? numbers_of(counts_, patience_) : "") +
      ": the last " + std::to_string(most) + " updates were empty (" +
      short_text(what.directions_passed) + " of " + short_text(what.directions) +
      " directions passed), so only weight decay acts. ";
  if (const auto* filter = std::get_if<PionRule>(&rule)) {
    return text + std::string(rule_name(rule)) + " with " +
           present_filter(*filter, what) + ". " + remedy(*filter, what);
  }
  if (const auto* low_pass = std::get_if<LowPassMuonRule>(&rule)) {
    return text + "low_pass_muon passes singular values below cutoff = " +
           short_text(low_pass->cutoff) + " of the norm; raise cutoff.";
  }
  return text + std::string(rule_name(rule)) +
         " passes every direction of its momentum, so the momentum has vanished: look at "
         "the gradient's size.";
}

}  // namespace pion
