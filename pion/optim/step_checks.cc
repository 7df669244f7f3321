// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/step_checks.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace pion {
namespace {

[[noreturn]] void fail(std::size_t index, const std::string& what) {
  throw std::invalid_argument("step_all: updates[" + std::to_string(index) +
                              "]: " + what);
}

void check_sizes(const ParameterUpdate& update, std::size_t index) {
  if (update.count < 0 || update.rows < 0 || update.cols < 0) {
    fail(index, "count, rows and cols must be >= 0, got " + std::to_string(update.count) +
                    ", " + std::to_string(update.rows) + ", " +
                    std::to_string(update.cols));
  }
  std::int64_t entries = 0;
  if (__builtin_mul_overflow(update.count, update.rows, &entries) ||
      __builtin_mul_overflow(entries, update.cols, &entries)) {
    fail(index, "count times rows times cols must fit into 63 bits");
  }
  if (update.step < 1) {
    fail(index, "step must be >= 1, got " + std::to_string(update.step));
  }
}

void check_pointers(const ParameterUpdate& update, std::size_t index) {
  const auto need = [index](const void* pointer, const char* what) {
    if (pointer == nullptr) fail(index, std::string(what) + " must be given, got null");
  };
  need(update.weight, "weight");
  need(update.gradient, "gradient");
  if (std::holds_alternative<AdamWRule>(*update.rule)) {
    need(update.exp_avg, "exp_avg");
    need(update.exp_avg_sq, "exp_avg_sq");
  } else {
    const auto* sgd = std::get_if<SgdRule>(update.rule);
    if (sgd == nullptr || sgd->momentum > 0) need(update.momentum, "momentum");
  }
  if (update.weight_type == ElementType::kBf16 &&
      update.low_precision == LowPrecision::kMasterCopy) {
    need(update.master, "master");
  }
}

void check_types(const ParameterUpdate& update, std::size_t index) {
  if (update.gradient_type == ElementType::kF64 &&
      update.weight_type != ElementType::kF64) {
    fail(index,
         "an f64 gradient must come with an f64 weight, got a narrower one; "
         "convert the gradient");
  }
}

// The layout fits, and the cutoff can be had for the shape of every block.
void check_blocks(const ParameterUpdate& update) {
  const HeadLayout& layout = update.layout;
  check_head_layout(layout, update.rows, update.cols);
  const auto* pion = std::get_if<PionRule>(update.rule);
  if (pion == nullptr || pion->promotion_steps ||
      pion->cutoff.kind != Cutoff::Kind::kNoiseEdge) {
    return;  // no shape is refused
  }
  for (std::size_t part = 0; part < layout.heads.size(); ++part) {
    const std::int64_t length = layout.axis == 0 ? update.rows : update.cols;
    const std::int64_t head =
        (layout.sizes.empty() ? length : layout.sizes[part]) / layout.heads[part];
    rule_cutoff(*pion, layout.axis == 0 ? head : update.rows,
                layout.axis == 0 ? update.cols : head);
  }
}

}  // namespace

void check_updates(std::span<const ParameterUpdate> updates) {
  const Rule* known = nullptr;  // parameters of one group share a rule
  for (std::size_t i = 0; i < updates.size(); ++i) {
    const ParameterUpdate& update = updates[i];
    if (update.rule == nullptr) fail(i, "rule must be given, got null");
    if (update.rule != known) check_rule(*update.rule, "step_all");
    known = update.rule;
    check_sizes(update, i);
    check_types(update, i);
    if (update.count == 0 || update.rows == 0 || update.cols == 0) continue;
    check_pointers(update, i);
    if (is_matrix_rule(*update.rule)) {
      check_blocks(update);
    } else if (update.count != 1 || update.rows != 1) {
      fail(i, "count and rows must be 1 under an element-wise rule, got " +
                  std::to_string(update.count) + ", " + std::to_string(update.rows));
    }
  }
}

UpdateStatistics combine(std::span<const UpdateStatistics> matrices) {
  if (matrices.empty()) return {};
  if (matrices.size() == 1) return matrices.front();
  const double count = static_cast<double>(matrices.size());
  UpdateStatistics sum;
  double gradient = 0, update = 0;
  for (const UpdateStatistics& part : matrices) {
    sum.skipped |= part.skipped;
    gradient += part.gradient_norm * part.gradient_norm;
    update += part.update_rms * part.update_rms;
    sum.directions_passed += part.directions_passed;
    sum.directions += part.directions;
    sum.stable_rank += part.stable_rank / count;
    sum.energy_kept += part.energy_kept / count;
    sum.sigma_max = std::max(sum.sigma_max, part.sigma_max);
    sum.head_spread = std::max(sum.head_spread, part.head_spread);
    sum.half_pass = std::max(sum.half_pass, part.half_pass);
  }
  sum.gradient_norm = std::sqrt(gradient);
  sum.update_rms = std::sqrt(update / count);
  return sum;
}

}  // namespace pion
