// SPDX-License-Identifier: Apache-2.0
// What `pion bench` steps: shapes, rules, and the groups that its tables are made of.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pion/optim/head_layout.h"
#include "pion/optim/rule.h"

namespace pion::bench {

// One parameter, cut in `heads` blocks of (rows x cols) that lie below one another (axis
// 0: Q, K, V) or side by side (axis 1: the output projection).
struct ParameterShape {
  std::int64_t heads = 1, rows = 1, cols = 1;
  int axis = 0;

  std::int64_t all_rows() const { return axis == 0 ? heads * rows : rows; }
  std::int64_t all_cols() const { return axis == 1 ? heads * cols : cols; }
  std::int64_t entries() const { return heads * rows * cols; }
};

// The parameters of one step, in the order of the text.
struct Workload {
  std::string text;  // as read_workload takes it
  std::vector<ParameterShape> parameters;

  std::int64_t entries() const;
  std::int64_t blocks() const;
};

// From text: parameters joined by "+", each
//
//   128x1024         one matrix, rows x columns
//   8x128x1024       8 heads of (128 x 1024) below one another
//   8x1024x128:cols  8 heads of (1024 x 128) side by side
//   4*64x64          four such parameters
//
// Throws std::invalid_argument, as the next three do without the name of a function: the
// caller adds that of the flag.
Workload read_workload(const std::string& text);

// "pion1" to "pion5" (promotion_steps), "pion_auto" (cutoff "auto"), "muon",
// "adamw", "sgd" with the hyperparameters that all sides of a measurement share.
std::vector<std::string> rule_labels();
// Throws std::invalid_argument with the nearest right label.
Rule make_labelled_rule(const std::string& label);

// The names of all peers, see sides.h.
std::vector<std::string> peer_names();

std::string_view precision_name(Precision precision);
// Throws std::invalid_argument with the nearest right name.
Precision read_precision(const std::string& name);

// The gradients of a group.
enum class Spectrum {
  kPowerLaw,  // every block: directions falling as 1/i, and white noise
  kFlat,      // white noise alone: a strong filter drives everything towards zero
};

struct Group {
  std::string name;  // --group
  std::string title;
  std::vector<std::string> shapes;  // read_workload
  std::vector<std::string> quick;   // of them, those of --quick
  std::vector<std::string> rules;
  std::vector<Precision> precisions;  // without --precision
  Spectrum spectrum = Spectrum::kPowerLaw;
  bool outside_map = false;  // times what is left of a step without its map
};

const std::vector<Group>& groups();
// Throws std::invalid_argument with the nearest right name.
const Group& find_group(const std::string& name);

}  // namespace pion::bench
