// SPDX-License-Identifier: Apache-2.0
// The table of what else was measured at the tuned rates.
#include <cmath>

#include "lab/report/page_data.h"

namespace pion::lab::report {

Json measures(const Comparison& comparison) {
  Json columns = Json::array(), rows = Json::array();
  std::vector<bool> known(comparison.columns.size());  // somebody has a value
  for (const Entrant& entrant : comparison.entrants) {
    Json cells = Json::array();
    for (std::size_t c = 0; c < comparison.columns.size(); ++c) {
      std::vector<double> values;
      for (const int run : entrant.runs) {
        const auto& metrics = comparison.runs[run].metrics;
        const auto found = metrics.find(comparison.columns[c].metric);
        if (found != metrics.end()) values.push_back(found->second);
      }
      const Interval interval = confidence_interval(values);
      known[c] = known[c] || std::isfinite(interval.mean);
      // equal values may differ in their last bit
      const bool spread = interval.deviation > 1e-9 * std::abs(interval.mean);
      cells.push_back(format_score(interval.mean, spread ? interval.deviation : kNan));
    }
    rows.push_back({{"key", entrant.name}, {"cells", cells}});
  }
  for (std::size_t c = 0; c < comparison.columns.size(); ++c)
    columns.push_back(
        {{"title", comparison.columns[c].title}, {"known", bool(known[c])}});
  return {{"columns", columns}, {"rows", rows}};
}

}  // namespace pion::lab::report
