// SPDX-License-Identifier: Apache-2.0
// The files of a run as its report reads them, up to the data of the page. The input has
// metrics.jsonl, result.json, sample.json, environment.json, recipe.toml and routing.toml
// in this order, with lines "---" between.
#include <map>
#include <sstream>

#include "lab/report/page_data.h"
#include "lab/report/run_record.h"
#include "lab/run/metric_columns.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pion::lab;
  constexpr const char* kNames[] = {"metrics.jsonl",    "result.json", "sample.json",
                                    "environment.json", "recipe.toml", "routing.toml"};
  const auto parts = pion::fuzz::parts_of(pion::fuzz::text_of(data, size));
  std::map<std::string, std::string> files;
  for (std::size_t i = 0; i < std::size(kNames) && i < parts.size(); ++i)
    if (!parts[i].empty()) files[kNames[i]] = parts[i];
  const auto file = [&](const char* name) -> std::optional<std::string> {
    const auto at = files.find(name);
    return at == files.end() ? std::nullopt : std::optional(at->second);
  };
  std::istringstream lines(parts[0]);
  const report::RunRecord run = report::read_run("run", &lines, file);
  report::page_data(report::comparison_of(run), {{0, run}})
      .dump(-1, ' ', false, report::Json::error_handler_t::replace);
  std::istringstream again(parts[0]);
  using Source = MetricColumn::Source;
  metric_values(again, {{"score_mean", "score", Source::kEvaluation},
                        {"loss", "loss", Source::kUpdates},
                        {"update_rms", "rms", Source::kOptimizer}});
  return 0;
}
