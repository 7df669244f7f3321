// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>

#include "benchmarks/study_runs.h"
#include "benchmarks/study_sections.h"
#include "lab/tasks/least_squares.h"

namespace pion::study {
namespace {

constexpr int kLeastSquaresSeeds = 3, kFirstLeastSquares = 10;
constexpr double kLeastSquaresRates[] = {0.1, 0.01, 0.001};

// s = 1, so that lr is the spectral norm of an update.
Rule at_scale_one(Rule rule, double momentum, bool nesterov) {
  MatrixRule& shared = *matrix_rule(rule);
  shared.momentum = momentum;
  shared.nesterov = nesterov;
  shared.scale = Scale::kOfficial;
  shared.scale_factor = 1.0 / std::sqrt(20.0);  // times sqrt(max(20, 8))
  return rule;
}

struct Row {
  Method method;
  double factor = 1.0;  // on the rates of the table's head
};

std::vector<Row> rows() {
  LowRankMuonRule polar;
  polar.rank = 8;  // all of them: the exact polar factor
  PionRule filter;
  filter.cutoff = {Cutoff::Kind::kValue, 0.1};
  AdamWRule adamw;
  adamw.eps = 1e-12;
  SgdRule sgd;
  sgd.momentum = 0.0;
  return {{{"exact polar factor, no momentum", at_scale_one(polar, 0.0, false)}},
          {{"muon, no momentum", at_scale_one(MuonRule{}, 0.0, false)}},
          {{"muon, momentum 0.95, Nesterov", at_scale_one(MuonRule{}, 0.95, true)}},
          {{"pion 0.1, momentum 0.95", at_scale_one(filter, 0.95, false)}},
          {{"adamw", adamw}},
          {{"sgd, no momentum, lr 10 x", sgd}, 10.0}};
}

}  // namespace

Section least_squares_section(int jobs, const Progress& progress) {
  const std::vector<Row> table = rows();
  constexpr std::size_t kColumns = std::size(kLeastSquaresRates);
  std::vector<std::vector<double>> losses(table.size() * kColumns);
  const MakeTask make = [](std::int64_t seed) {
    return std::make_unique<lab::LeastSquares>(lab::LeastSquaresOptions{.seed = seed});
  };
  in_parallel(losses.size(), jobs, [&](std::size_t i) {
    const Row& row = table[i / kColumns];
    const double lr = kLeastSquaresRates[i % kColumns] * row.factor;
    for (int s = 0; s < kLeastSquaresSeeds; ++s) {
      losses[i].push_back(run_once(make, row.method.rule, lr, kFirstLeastSquares + s,
                                   {.decay = false, .tail = "loss"})["tail_loss"]);
    }
    progress(fmt::format("least_squares: {}, lr {}", row.method.name, lr));
  });
  Section section;
  section.markdown = "| method | lr 0.1 | 0.01 | 0.001 |\n| --- | --- | --- | --- |\n";
  section.json = lab::Json::array();
  for (std::size_t r = 0; r < table.size(); ++r) {
    section.markdown += "| " + table[r].method.name;
    for (std::size_t c = 0; c < kColumns; ++c) {
      const std::vector<double>& cell = losses[r * kColumns + c];
      const Mean loss = mean_of(cell);
      section.markdown += fmt::format(" | {:.2e} ± {:.0e}", loss.mean, loss.error);
      section.json.push_back({{"method", table[r].method.name},
                              {"lr", kLeastSquaresRates[c] * table[r].factor},
                              {"losses", cell}});
    }
    section.markdown += " |\n";
  }
  return section;
}

}  // namespace pion::study
