// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/step_checks.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace pion {
namespace {

[[noreturn]] void fail(const ParameterUpdate& update, std::size_t index,
                       const std::string& what) {
  throw std::invalid_argument("step_all: " + label(update, index) + ": " + what);
}

void check_sizes(const ParameterUpdate& update, std::size_t index) {
  if (update.count < 0 || update.rows < 0 || update.cols < 0) {
    fail(update, index,
         "count, rows and cols must be >= 0, got " + std::to_string(update.count) + ", " +
             std::to_string(update.rows) + ", " + std::to_string(update.cols));
  }
  std::int64_t entries = 0;
  if (__builtin_mul_overflow(update.count, update.rows, &entries) ||
      __builtin_mul_overflow(entries, update.cols, &entries)) {
    fail(update, index, "count times rows times cols must fit into 63 bits");
  }
  if (update.step < 1) {
    fail(update, index, "step must be >= 1, got " + std::to_string(update.step));
  }
}

bool needs_momentum(const Rule& rule) {
  const auto* sgd = std::get_if<SgdRule>(&rule);
  return is_matrix_rule(rule) || (sgd != nullptr && sgd->momentum > 0);
}

bool needs_master(const ParameterUpdate& update) {
  return update.weight_type == ElementType::kBf16 &&
         update.low_precision == LowPrecision::kMasterCopy;
}

void check_pointers(const ParameterUpdate& update, std::size_t index) {
  const auto need = [&](const void* pointer, const char* what) {
    if (pointer == nullptr)
      fail(update, index, std::string(what) + " must be given, got null");
  };
  need(update.weight, "weight");
  need(update.gradient, "gradient");
  if (std::holds_alternative<AdamWRule>(*update.rule)) {
    need(update.exp_avg, "exp_avg");
    need(update.exp_avg_sq, "exp_avg_sq");
  } else if (needs_momentum(*update.rule)) {
    need(update.momentum, "momentum");
  }
  if (needs_master(update)) need(update.master, "master");
}

void check_types(const ParameterUpdate& update, std::size_t index) {
  if (update.gradient_type == ElementType::kF64 &&
      update.weight_type != ElementType::kF64) {
    fail(update, index,
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

// Adds an array that the update of that index writes.
void add_array(std::vector<WrittenArray>& arrays, std::size_t index, const void* data,
               std::size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(data);
  if (data != nullptr) arrays.push_back({first, first + bytes, index});
}

void find_arrays(std::span<const ParameterUpdate> updates,
                 std::vector<WrittenArray>& arrays) {
  arrays.clear();
  for (std::size_t i = 0; i < updates.size(); ++i) {
    const ParameterUpdate& update = updates[i];
    const auto entries =
        static_cast<std::size_t>(update.count * update.rows * update.cols);
    if (entries == 0) continue;
    const ElementType type = update.weight_type;
    const std::size_t state = entries * (type == ElementType::kF64 ? 8 : 4);
    add_array(arrays, i, update.weight, type == ElementType::kBf16 ? entries * 2 : state);
    if (std::holds_alternative<AdamWRule>(*update.rule)) {
      add_array(arrays, i, update.exp_avg, state);
      add_array(arrays, i, update.exp_avg_sq, state);
    } else if (needs_momentum(*update.rule)) {
      add_array(arrays, i, update.momentum, state);
    }
    if (needs_master(update)) add_array(arrays, i, update.master, state);
  }
}

}  // namespace

std::string label(const ParameterUpdate& update, std::size_t index) {
  std::string text = "updates[" + std::to_string(index) + "]";
  if (!update.name.empty()) text += " (" + std::string(update.name) + ")";
  return text;
}

void check_apart(std::span<const ParameterUpdate> updates,
                 std::vector<WrittenArray>& known, std::vector<WrittenArray>& sorted) {
  find_arrays(updates, sorted);
  if (sorted == known) return;
  known = sorted;
  std::sort(
      sorted.begin(), sorted.end(),
      [](const WrittenArray& a, const WrittenArray& b) { return a.first < b.first; });
  const WrittenArray* furthest = nullptr;  // of those that begin before
  for (const WrittenArray& array : sorted) {
    if (furthest != nullptr && array.first < furthest->last &&
        array.update != furthest->update) {
      const auto [first, second] = std::minmax(array.update, furthest->update);
      known.clear();
      fail(updates[second], second,
           "its weight and state must have memory of their own, got what " +
               label(updates[first], first) +
               " writes too; give each parameter once, and tied ones as one");
    }
    if (furthest == nullptr || array.last > furthest->last) furthest = &array;
  }
}

void check_updates(std::span<const ParameterUpdate> updates) {
  const Rule* known = nullptr;  // parameters of one group share a rule
  for (std::size_t i = 0; i < updates.size(); ++i) {
    const ParameterUpdate& update = updates[i];
    if (update.rule == nullptr) fail(update, i, "rule must be given, got null");
    if (update.rule != known) check_rule(*update.rule, "step_all");
    known = update.rule;
    check_sizes(update, i);
    check_types(update, i);
    if (update.count == 0 || update.rows == 0 || update.cols == 0) continue;
    check_pointers(update, i);
    if (is_matrix_rule(*update.rule)) {
      check_blocks(update);
    } else if (update.count != 1 || update.rows != 1) {
      fail(update, i,
           "count and rows must be 1 under an element-wise rule, got " +
               std::to_string(update.count) + ", " + std::to_string(update.rows));
    }
  }
}

UpdateStatistics combine(std::span<const UpdateStatistics> matrices) {
  if (matrices.empty()) return {};
  if (matrices.size() == 1) return matrices.front();
  const auto all = static_cast<double>(matrices.size());
  UpdateStatistics sum;
  for (const UpdateStatistics& part : matrices) sum.idle += part.idle;
  const double count = std::max(1.0, all - static_cast<double>(sum.idle));
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
  sum.update_rms = std::sqrt(update / all);
  return sum;
}

}  // namespace pion
