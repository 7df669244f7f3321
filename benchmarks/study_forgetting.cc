// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "benchmarks/study_problems.h"
#include "benchmarks/study_sections.h"
#include "lab/tasks/forgetting.h"

namespace pion::study {
namespace {

constexpr double kLevel = 0.1;  // of J, where methods are compared
constexpr int kRates = 11;
constexpr int kSeeds = 8, kFirstSeed = 10;

struct Point {
  double forgotten, loss;
};

struct Curve {  // of one method and seed
  std::array<Point, kRates> points;
  // F at the first crossing of J = kLevel as lr grows; NaN if there is none.
  double forgotten_at_level() const {
    for (int k = 0; k + 1 < kRates; ++k) {
      const Point &a = points[k], &b = points[k + 1];
      if (a.loss < kLevel || b.loss >= kLevel) continue;
      const double share = std::log(a.loss / kLevel) / std::log(a.loss / b.loss);
      return std::exp((1 - share) * std::log(a.forgotten) +
                      share * std::log(b.forgotten));
    }
    return std::numeric_limits<double>::quiet_NaN();
  }
  const Point& best() const {
    return *std::min_element(
        points.begin(), points.end(),
        [](const Point& a, const Point& b) { return a.loss < b.loss; });
  }
};

double forgetting_rate(int k) { return 4e-5 * std::pow(1.6, k); }

Method noise_edge(double factor) {
  Method method = pion(0.3);
  auto& rule = std::get<PionRule>(method.rule);
  rule.cutoff = {Cutoff::Kind::kNoiseEdge};
  rule.edge_factor = factor;
  return {fmt::format("pion noise_edge {}", factor), method.rule};
}

lab::Json describe(const Method& method, const std::vector<Curve>& curves,
                   const std::vector<Curve>& reference, std::string& row) {
  std::vector<double> at_level, ratio, best_loss, best_forgotten;
  lab::Json runs = lab::Json::array();
  for (int s = 0; s < kSeeds; ++s) {
    const double forgotten = curves[s].forgotten_at_level();
    if (std::isfinite(forgotten)) {
      at_level.push_back(forgotten);
      ratio.push_back(forgotten / reference[s].forgotten_at_level());
    }
    best_loss.push_back(curves[s].best().loss);
    best_forgotten.push_back(curves[s].best().forgotten);
    for (int k = 0; k < kRates; ++k) {
      runs.push_back({{"seed", kFirstSeed + s},
                      {"lr", forgetting_rate(k)},
                      {"forgotten", curves[s].points[k].forgotten},
                      {"task2_loss", curves[s].points[k].loss}});
    }
  }
  const Mean f = mean_of(at_level), r = mean_of(ratio), j = mean_of(best_loss),
             b = mean_of(best_forgotten);
  row = fmt::format(
      "| {} | {:.3f} ± {:.3f} | {:.3f} ± {:.3f} | {} | {:.4f} ± {:.4f} | {:.3f} |\n",
      method.name, f.mean, f.error, r.mean, r.error, at_level.size(), j.mean, j.error,
      b.mean);
  return {{"method", method.name},
          {"forgotten_at_level", f.mean},
          {"ratio_to_sgd", r.mean},
          {"ratio_error", r.error},
          {"seeds_that_reach", at_level.size()},
          {"best_loss", j.mean},
          {"runs", runs}};
}

}  // namespace

Section forgetting_section(int jobs, const Progress& progress) {
  const std::vector<Method> methods = {sgd(),         muon(),       adamw(),
                                       pion(0.1),     pion(0.3),    pion(0.5),
                                       noise_edge(1), noise_edge(2)};
  std::vector<std::vector<Curve>> curves(methods.size(), std::vector<Curve>(kSeeds));
  const MakeTask make = [](std::int64_t seed) {
    return std::make_unique<lab::Forgetting>(lab::ForgettingOptions{.seed = seed});
  };
  in_parallel(methods.size() * kSeeds, jobs, [&](std::size_t i) {
    const std::size_t m = i / kSeeds, s = i % kSeeds;
    for (int k = 0; k < kRates; ++k) {
      const lab::Json end =
          run_once(make, methods[m].rule, forgetting_rate(k), kFirstSeed + s, {});
      curves[m][s].points[k] = {end["forgotten"], end["task2_loss"]};
    }
    progress(fmt::format("forgetting: {}, seed {}", methods[m].name, kFirstSeed + s));
  });
  Section section;
  section.markdown =
      "| method | F at J = 0.1 | ratio to SGD, paired | seeds | best J | F there |\n"
      "| --- | --- | --- | --- | --- | --- |\n";
  section.json = lab::Json::array();
  for (std::size_t m = 0; m < methods.size(); ++m) {
    std::string row;
    section.json.push_back(describe(methods[m], curves[m], curves[0], row));
    section.markdown += row;
  }
  return section;
}

}  // namespace pion::study
