// SPDX-License-Identifier: Apache-2.0
// The update rules' hyperparameters. Every front end (C++, recipes, routing files, groups of
// LibTorch) reads names, defaults and ranges from here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pion/spectral/spectral_map.h"

namespace pion {

// The factor s in W <- W - lr s O, O of shape (rows, cols) per head.
enum class Scale {
  kMatchRmsAdamW,  // 0.2 sqrt(max(rows, cols)); arXiv:2502.16982
  kOriginal,       // sqrt(max(1, rows / cols)); K. Jordan 2024
  kSpectral,       // sqrt(rows / cols); Scion, dion
  kOfficial,       // scale_factor sqrt(max(rows, cols)), scale_factor 2.0 as in pion.py
  kUnitRms,        // O is rescaled to root mean square scale_factor (default 1), with a floor
};

// What a step does with a gradient that holds NaN or Inf.
enum class NonFinite {
  kSkip,   // leave weight and state as they are, count it
  kRaise,  // throw before anything is written
  kZero,   // non-finite entries count as 0
};

// The strength of Pion's filter, relative to the chosen norm.
struct Cutoff {
  enum class Kind {
    kAutomatic,  // "auto": min(0.3, 2 (1/sqrt m + 1/sqrt n)) for the block's shape m x n
    kNoiseEdge,  // "noise_edge": edge_factor (1/sqrt m + 1/sqrt n)
    kValue,      // a number in [smallest_cutoff(steps), 0.8165]
  };
  Kind kind = Kind::kAutomatic;
  double value = 0.0;  // kValue only
};

// Shared by every rule for matrices. Momentum is averaging: M <- mu M + (1 - mu) G.
struct MatrixRule {
  double lr = 1e-3;           // > 0 (0 is allowed: nothing moves)
  double momentum = 0.95;     // mu, in [0, 1)
  bool nesterov = false;      // direction mu M + (1 - mu) G in place of M
  double weight_decay = 0.0;  // decoupled: W <- (1 - lr weight_decay) W; >= 0
  Scale scale = Scale::kMatchRmsAdamW;
  std::optional<double> scale_factor;  // kOfficial, kUnitRms only; > 0
  NonFinite nonfinite = NonFinite::kSkip;
};

// Pion, arXiv:2605.19282: a high-pass filter on the singular values of the momentum.
struct PionRule : MatrixRule {
  Cutoff cutoff;
  double edge_factor = 2.0;            // for "noise_edge"; > 0
  std::optional<int> promotion_steps;  // the published map instead of a cutoff; in [0, steps]
  int steps = 5;                       // in [1, 64]
  Normalization normalization = Normalization::kFrobenius;
};

// Muon: every singular value to about 1.
struct MuonRule : MatrixRule {
  MuonRule() { nesterov = true; }
  std::string coefficients = "classic";  // see muon_sequence
  int steps = 5;                         // in [1, 64]
  Normalization normalization = Normalization::kFrobenius;
};

// The `rank` largest singular values to 1, the rest to 0 (exact SVD): what the filter
// approximates.
struct LowRankMuonRule : MatrixRule {
  std::int64_t rank = 128;  // > 0
};

// The opposite of Pion (exact SVD): what lies below `cutoff` ||M||_F to 1, the rest to 0. Our
// own stand-in: the paper's coefficients for this ablation are not public.
struct LowPassMuonRule : MatrixRule {
  double cutoff = 0.3;  // in (0, 1]
};

// AdamW, arXiv:1711.05101, as in torch.optim.AdamW.
struct AdamWRule {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;  // in [0, 1)
  double eps = 1e-8;                  // > 0; added after the square root and bias correction
  double weight_decay = 0.0;
  NonFinite nonfinite = NonFinite::kSkip;
};

// SGD with momentum, as in torch.optim.SGD (sum form: B <- mu B + (1 - dampening) G), but with
// decoupled weight decay.
struct SgdRule {
  double lr = 1e-2;
  double momentum = 0.9;
  double dampening = 0.0;  // in [0, 1]; 1 - momentum gives the averaging form
  bool nesterov = false;
  double weight_decay = 0.0;
  NonFinite nonfinite = NonFinite::kSkip;
};

using Rule = std::variant<PionRule, MuonRule, LowRankMuonRule, LowPassMuonRule, AdamWRule, SgdRule>;

// Names as users type them: "pion", "muon", "low_rank_muon", "low_pass_muon", "adamw", "sgd".
std::vector<std::string> rule_names();
Rule make_rule(std::string_view name);  // with the defaults above
std::string_view rule_name(const Rule& rule);
bool is_matrix_rule(const Rule& rule);
double learning_rate(const Rule& rule);
void set_learning_rate(Rule& rule, double lr);

// Hyperparameters by key ("lr", "momentum", "cutoff", ...). Values are bool, integer, number or
// text; "cutoff" takes a number, "auto" or "noise_edge"; an unset optional is absent.
using RuleValue = std::variant<bool, std::int64_t, double, std::string>;
struct RuleKey {
  std::string name;         // "weight_decay"
  std::string description;  // one line with range and unit
  std::optional<RuleValue> value;  // the rule's present value
};
std::vector<RuleKey> rule_keys(const Rule& rule);
// Throws std::invalid_argument for an unknown key (with the nearest right one), a wrong type or
// a value out of range. An integer is taken where a number is wanted.
void set_rule_key(Rule& rule, std::string_view key, const RuleValue& value);
std::optional<RuleValue> get_rule_key(const Rule& rule, std::string_view key);

// Checks every field and their combination (cutoff and promotion_steps together, scale_factor
// with a scale that has none, a cutoff that `steps` cannot reach). `where` begins the message.
void check_rule(const Rule& rule, std::string_view where);

// The nearest of `candidates` by edit distance, or "" if none is near.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace pion
