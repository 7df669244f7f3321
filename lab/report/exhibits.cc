// SPDX-License-Identifier: Apache-2.0
// What a reader of reward curves is easily wrong about, each as one chart with its
// numbers: loss against reward, sampled against greedy accuracy, form against content,
// and the steps of hidden matrices against those of embeddings.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lab/report/page_data.h"

namespace pion::lab::report {
namespace {

constexpr int kPoints = 120;  // of one line

std::string digits(double value, int decimals) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.*f", decimals, value);
  return buffer;
}

const std::vector<double>* column(const MetricTable& table, const std::string& name) {
  const auto found = table.metrics.find(name);
  return found == table.metrics.end() ? nullptr : &found->second;
}

// Pearson's correlation of the entries that are finite in both; NaN below three.
double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  double n = 0, sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) continue;
    n += 1, sa += a[i], sb += b[i];
    saa += a[i] * a[i], sbb += b[i] * b[i], sab += a[i] * b[i];
  }
  const double spread = (saa - sa * sa / n) * (sbb - sb * sb / n);
  return n < 3 || !(spread > 0) ? kNan : (sab - sa * sb / n) / std::sqrt(spread);
}

// "AdamW 0.71, Muon 0.65" of `value` for every entrant that has one.
template <class Value>
std::string by_optimizer(const Comparison& comparison, int decimals, Value value) {
  std::string list;
  for (const Entrant& entrant : comparison.entrants) {
    const double number = value(entrant);
    if (!std::isfinite(number)) continue;
    list +=
        (list.empty() ? "" : ", ") + label(entrant.name) + " " + digits(number, decimals);
  }
  return list;
}

class Exhibits {
 public:
  Exhibits(const Comparison& comparison, const std::map<int, RunRecord>& records)
      : comparison_(comparison), records_(records) {}

  Json all() {
    loss_and_reward();
    sampled_and_greedy();
    form_and_content();
    matrices_and_embeddings();
    return std::move(list_);
  }

 private:
  // The mean over the entrant's seeds of `name`'s last entry.
  double last(const Entrant& entrant, const std::string& name) const {
    std::vector<double> values;
    for (const int run : entrant.runs) {
      if (!records_.count(run)) continue;
      const auto* entries = column(records_.at(run).metrics.evaluations, name);
      if (entries != nullptr && !entries->empty()) values.push_back(entries->back());
    }
    return confidence_interval(values).mean;
  }

  // Rows of `name` over updates, mean over seeds, as the line `series`.
  bool add_line(Json& rows, const Entrant& entrant, const std::string& name,
                const std::string& series) const {
    std::vector<Curve> seeds;
    for (const int run : entrant.runs) {
      if (!records_.count(run)) continue;
      const MetricTable& table = records_.at(run).metrics.evaluations;
      if (const auto* values = column(table, name))
        seeds.push_back(downsample({table.step, *values}, kPoints));
    }
    const Band band = aggregate(seeds, kPoints);
    for (std::size_t i = 0; i < band.x.size(); ++i)
      rows.push_back({{"optimizer", entrant.name},
                      {"series", series},
                      {"x", rounded(band.x[i])},
                      {"y", rounded(band.mean[i])}});
    return !band.x.empty();
  }

  void add(const std::string& key, const std::string& title, const std::string& kind,
           const std::string& x, const std::string& y, const std::string& caption,
           Json rows) {
    if (rows.empty()) return;
    list_.push_back({{"key", key},
                     {"title", title},
                     {"kind", kind},
                     {"x", x},
                     {"y", y},
                     {"caption", caption},
                     {"rows", std::move(rows)}});
  }

  void loss_and_reward() {
    Json rows = Json::array();
    std::map<std::string, double> correlations;
    for (const Entrant& entrant : comparison_.entrants) {
      const int run = best_run(comparison_, entrant, records_);
      if (run < 0) continue;
      const MetricTable& updates = records_.at(run).metrics.updates;
      const auto *loss = column(updates, "loss"),
                 *reward = column(updates, "reward_mean");
      if (loss == nullptr || reward == nullptr) continue;
      correlations[entrant.name] = correlation(*loss, *reward);
      for (std::size_t i = 0; i < loss->size(); ++i)
        if (std::isfinite((*loss)[i]) && std::isfinite((*reward)[i]))
          rows.push_back({{"optimizer", entrant.name},
                          {"x", rounded((*loss)[i])},
                          {"y", rounded((*reward)[i])}});
    }
    add("loss_reward", "Loss against reward", "points", "loss of the update",
        "mean reward of its rollout",
        "One point an update of the best seed. Correlation of loss and reward: " +
            by_optimizer(comparison_, 2,
                         [&](const Entrant& entrant) {
                           const auto found = correlations.find(entrant.name);
                           return found == correlations.end() ? kNan : found->second;
                         }) +
            ". With centred advantages the loss is near 0 whatever the policy is worth.",
        std::move(rows));
  }

  void sampled_and_greedy() {
    Json rows = Json::array();
    for (const Entrant& entrant : comparison_.entrants) {
      add_line(rows, entrant, "accuracy", "greedy");
      add_line(rows, entrant, "sampled_accuracy", "temperature 1");
    }
    const auto gap = [&](const Entrant& entrant) {
      return last(entrant, "accuracy") - last(entrant, "sampled_accuracy");
    };
    add("sampled_greedy", "Greedy against temperature 1", "lines", "updates",
        "held-out accuracy",
        "Training sees temperature 1, users mostly see greedy answers. Greedy minus "
        "sampled at the end: " +
            by_optimizer(comparison_, 3, gap) + ".",
        std::move(rows));
  }

  void form_and_content() {
    Json rows = Json::array();
    for (const Entrant& entrant : comparison_.entrants) {
      add_line(rows, entrant, "format_rate", "has the asked form");
      add_line(rows, entrant, "right_unformatted_rate", "right, without the form");
    }
    const auto lost = [&](const Entrant& entrant) {
      return last(entrant, "right_unformatted_rate");
    };
    add("form_content", "Form against content", "lines", "updates",
        "share of greedy answers",
        "An answer that is right outside of its box earns nothing. Share of right "
        "answers without the form at the end: " +
            by_optimizer(comparison_, 3, lost) + ".",
        std::move(rows));
  }

  void matrices_and_embeddings();

  const Comparison& comparison_;
  const std::map<int, RunRecord>& records_;
  Json list_ = Json::array();
};

// Median over the traces that `wanted` picks, at every step where they report.
template <class Wanted>
Curve median_rms(const RunRecord& record, Wanted wanted) {
  std::map<double, std::vector<double>> by_step;
  for (const ParameterTrace& trace : record.metrics.parameters) {
    const auto values = trace.values.find("update_rms");
    if (values == trace.values.end() || !wanted(trace.name)) continue;
    for (std::size_t i = 0; i < trace.step.size(); ++i)
      if (values->second[i] > 0) by_step[trace.step[i]].push_back(values->second[i]);
  }
  Curve curve;
  for (auto& [step, values] : by_step) {
    const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    curve.x.push_back(step), curve.y.push_back(*middle);
  }
  return curve;
}

// Only where some optimizer leaves the embeddings to SGD: otherwise nothing differs.
void Exhibits::matrices_and_embeddings() {
  const auto embeds = [](const std::string& name) {
    return name.find("embed") != std::string::npos ||
           name.find("lm_head") != std::string::npos;
  };
  Json rows = Json::array();
  std::map<std::string, double> ratio;
  bool slow = false;
  for (const Entrant& entrant : comparison_.entrants) {
    const int run = best_run(comparison_, entrant, records_);
    if (run < 0) continue;
    const RunRecord& record = records_.at(run);
    for (const ParameterTrace& trace : record.metrics.parameters)
      slow = slow || (embeds(trace.name) && trace.rule == "sgd");
    const auto add_curve = [&](const Curve& curve, const char* series) {
      for (std::size_t i = 0; i < curve.x.size(); ++i)
        rows.push_back({{"optimizer", entrant.name},
                        {"series", series},
                        {"x", rounded(curve.x[i])},
                        {"y", rounded(curve.y[i])}});
    };
    const Curve matrices =
        median_rms(record, [&](const std::string& name) { return !embeds(name); });
    const Curve embeddings = median_rms(record, embeds);
    add_curve(matrices, "other parameters");
    add_curve(embeddings, "embeddings and head");
    if (!matrices.y.empty() && !embeddings.y.empty())
      ratio[entrant.name] = matrices.y.back() / embeddings.y.back();
  }
  if (!slow) return;
  add("matrices_embeddings", "Hidden matrices against embeddings", "log_lines", "updates",
      "update RMS, median",
      "SGD on the embeddings steps in proportion to the gradient, AdamW does not. Size "
      "of the other parameters' updates over that of embeddings and head at the end: " +
          by_optimizer(comparison_, 1,
                       [&](const Entrant& entrant) {
                         const auto found = ratio.find(entrant.name);
                         return found == ratio.end() ? kNan : found->second;
                       }) +
          ".",
      std::move(rows));
}

}  // namespace

Json exhibits(const Comparison& comparison, const std::map<int, RunRecord>& records) {
  return Exhibits(comparison, records).all();
}

}  // namespace pion::lab::report
