// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/empty_update_watch.h"

#include <algorithm>
#include <cstdio>

#include "pion/optim/matrix_step.h"
#include "pion/optim/printed_bound.h"

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

}  // namespace

std::string EmptyUpdateWatch::observe(std::string_view parameter, const Rule& rule,
                                      const UpdateStatistics& what) {
  if (!is_matrix_rule(rule) || what.skipped || what.gradient_norm == 0) return "";
  if (what.directions_passed >= 0.5) {
    consecutive_ = 0;
    return "";
  }
  ++consecutive_;
  if (warned_ || consecutive_ < patience_) return "";
  warned_ = true;
  std::string text =
      std::string(parameter) + ": the last " + std::to_string(consecutive_) +
      " updates were empty (" + short_text(what.directions_passed) + " of " +
      short_text(what.directions) + " directions passed), so only weight decay acts. ";
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
         "the "
         "gradient's size.";
}

}  // namespace pion
