// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/study_problems.h"

#include <fmt/format.h>

#include <cmath>

#include "lab/tasks/planted_regression.h"

namespace pion::study {
namespace {

using lab::PlantedOptions;

Method matrix_method(std::string name, Rule rule, double mu) {
  MatrixRule& shared = *matrix_rule(rule);
  shared.momentum = mu;
  shared.nesterov = false;
  return {std::move(name), std::move(rule)};
}

Method published_pion() {  // two promotions, three suppressions
  PionRule rule;
  rule.promotion_steps = 2;
  return matrix_method("pion k_p=2", rule, 0.95);
}

Method noise_edge_pion(double factor) {
  PionRule rule;
  rule.cutoff = {Cutoff::Kind::kNoiseEdge};
  rule.edge_factor = factor;
  return matrix_method(fmt::format("pion noise_edge {}", factor), rule, 0.95);
}

Method automatic_pion() { return matrix_method("pion auto", PionRule{}, 0.95); }

Method low_rank_muon(std::int64_t rank) {
  LowRankMuonRule rule;
  rule.rank = rank;
  return matrix_method(fmt::format("low_rank_muon {}", rank), rule, 0.95);
}

Method low_pass_muon(double cutoff) {
  LowPassMuonRule rule;
  rule.cutoff = cutoff;
  return matrix_method(fmt::format("low_pass_muon {}", cutoff), rule, 0.95);
}

// A method and the rate (power of 1.6 above 5e-4) where its grid begins at width 128,
// rank 4.
struct Entry {
  Method method;
  int power;
};

// Without promotion_steps 2 (cutoff 0.296) and "auto" (0.3 up to width 177, then
// noise_edge 2), which the demonstration shows to be no third methods.
std::vector<Entry> main_entries() {
  return {
      {muon(), 6},    {adamw(), 2},           {sgd(), 2}, {pion(0.1), 4}, {pion(0.3), 2},
      {pion(0.5), 3}, {noise_edge_pion(2), 2}};
}

double rate(int power) { return 5e-4 * std::pow(1.6, power); }

struct Problem {
  std::string name;
  PlantedOptions options;
  bool decay = true;
};

Cell make_cell(const std::string& group, const Problem& problem, const Entry& entry) {
  Cell cell;
  cell.group = group;
  cell.problem = problem.name;
  cell.method = entry.method;
  cell.make = [options = problem.options](std::int64_t seed) {
    PlantedOptions seeded = options;
    seeded.seed = seed;
    return std::make_unique<lab::PlantedRegression>(seeded);
  };
  cell.schedule.decay = problem.decay;
  cell.score = "excess_ratio";
  cell.grid.centre = rate(entry.power);
  return cell;
}

// All nine rates of the published demonstration for every method.
std::vector<Cell> demo_cells() {
  std::vector<Cell> cells;
  std::vector<Entry> entries = main_entries();
  entries.push_back({published_pion(), 2});
  entries.push_back({automatic_pion(), 2});
  entries.push_back({low_rank_muon(4), 2});
  entries.push_back({low_pass_muon(0.3), 6});
  for (const Entry& entry : entries) {
    cells.push_back(make_cell("demo", {"rank 4, mid noise", {}}, entry));
    cells.back().grid = {.centre = rate(4), .points = 9};
  }
  return cells;
}

std::vector<Cell> noise_cells() {
  const std::vector<Problem> problems = {
      {"hi SNR", {.batch = 64, .noise = 0.3}},
      {"mid", {.batch = 32, .noise = 1.0}},
      {"low", {.batch = 8, .noise = 2.0}},
      {"mid, ill-conditioned", {.input_decay = 0.25}},
      {"almost noise-free, ill-conditioned", {.noise = 0.1, .input_decay = 0.5}},
  };
  std::vector<Cell> cells;
  for (const Problem& problem : problems) {
    for (const Entry& entry : main_entries())
      cells.push_back(make_cell("noise", problem, entry));
  }
  return cells;
}

std::vector<Cell> rank_cells() {
  std::vector<Cell> cells;
  for (const std::int64_t rank : {1, 4, 16, 32, 128}) {
    const Problem problem{fmt::format("rank {}", rank), {.rank = rank}};
    const int muon_power = rank <= 4 ? 6 : rank <= 32 ? 4 : 2;
    const int strong = rank <= 4    ? 2
                       : rank <= 32 ? 3
                                    : 6;  // little passes a strong filter
    for (Entry entry : main_entries()) {
      if (entry.method.name == "muon") entry.power = muon_power;
      if (entry.power == 2 && entry.method.name.starts_with("pion")) entry.power = strong;
      if (entry.method.name == "pion 0.5") entry.power = strong + 1;
      cells.push_back(make_cell("rank", problem, entry));
    }
  }
  return cells;
}

std::vector<Cell> width_cells() {
  std::vector<Cell> cells;
  for (const std::int64_t width : {64, 128, 256}) {
    const Problem problem{fmt::format("width {}", width), {.width = width}};
    for (Entry entry : main_entries()) {
      if (width == 256) entry.power -= entry.power > 1 ? 1 : 0;
      cells.push_back(make_cell("width", problem, entry));
      cells.back().grid.refine = true;  // optima move by 1.4 where the width doubles
    }
  }
  return cells;
}

std::vector<Cell> momentum_cells() {
  std::vector<Cell> cells;
  for (const double mu : {0.8, 0.9, 0.95, 0.98}) {
    const Problem problem{fmt::format("momentum {}", mu), {}};
    for (const Entry& entry : {Entry{muon(mu), 6}, Entry{adamw(mu), 2}, Entry{sgd(mu), 2},
                               Entry{pion(0.3, mu), 2}}) {
      cells.push_back(make_cell("momentum", problem, entry));
    }
  }
  return cells;
}

// The rules' own scales. A Muon update of 128 x 128 then has RMS 0.2 lr; SGD's follows
// the gradient; its sum form of momentum is 20 times the averaging form.
std::vector<Cell> native_cells(const std::string& group, bool decay) {
  std::vector<Cell> cells;
  const Problem problem{decay ? "linear decay" : "constant", {.equal_rms = false}, decay};
  const int lower = decay ? 0 : 2;  // a constant rate must be smaller
  for (const Entry& entry :
       {Entry{muon(), 9 - lower}, Entry{adamw(), 2 - lower}, Entry{sgd(), 4 - lower},
        Entry{pion(0.1), 9 - lower}, Entry{pion(0.3), 9}, Entry{noise_edge_pion(2), 9}}) {
    cells.push_back(make_cell(group, problem, entry));
  }
  return cells;
}

}  // namespace

Method muon(double mu) { return matrix_method("muon", MuonRule{}, mu); }

Method adamw(double mu) {
  AdamWRule rule;
  rule.beta1 = mu;
  rule.beta2 = 0.99;  // runs are 200 to 300 steps long
  rule.eps = 1e-12;   // gradients have no natural unit here
  return {"adamw", rule};
}

Method sgd(double mu) {
  SgdRule rule;
  rule.momentum = mu;
  return {"sgd", rule};
}

Method pion(double cutoff, double mu) {
  PionRule rule;
  rule.cutoff = {Cutoff::Kind::kValue, cutoff};
  return matrix_method(fmt::format("pion {}", cutoff), rule, mu);
}

const std::vector<Group>& groups() {
  static const std::vector<Group> all = {
      {"demo", "The demonstration: rank 4 of 128, nine rates for every method"},
      {"noise", "Signal and noise (rank 4 of 128)"},
      {"rank", "Rank of the change (width 128)"},
      {"width", "Width (rank 4)"},
      {"momentum", "Momentum (rank 4 of 128)"},
      {"native", "The rules' own scales, linear decay (rank 4 of 128)"},
      {"constant", "The rules' own scales, constant rate (rank 4 of 128)"},
      {"forgetting", "Forgetting a first task while a second is learned from rewards"},
      {"least_squares", "Ill-conditioned least squares at a constant rate"},
  };
  return all;
}

std::vector<Cell> planted_cells(const std::string& group) {
  if (group == "demo") return demo_cells();
  if (group == "noise") return noise_cells();
  if (group == "rank") return rank_cells();
  if (group == "width") return width_cells();
  if (group == "momentum") return momentum_cells();
  if (group == "native") return native_cells("native", true);
  if (group == "constant") return native_cells("constant", false);
  return {};
}

}  // namespace pion::study
