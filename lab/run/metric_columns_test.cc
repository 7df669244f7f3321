// SPDX-License-Identifier: Apache-2.0
#include "lab/run/metric_columns.h"

#include <gtest/gtest.h>

#include <sstream>

namespace pion::lab {
namespace {

using Source = MetricColumn::Source;

const std::vector<MetricColumn> kColumns = {
    {"format_rate", "format rate"},
    {"reward_mean", "reward mean", Source::kUpdates},
    {"update_rms", "update RMS", Source::kOptimizer},
    {"directions_passed", "directions passed", Source::kOptimizer},
    {"empty_matrices", "empty matrices", Source::kOptimizer},
    {"entropy", "entropy", Source::kUpdates}};

TEST(MetricColumns, FinalEvaluationAndTheLastTenthOfUpdates) {
  std::stringstream lines;
  lines << R"({"kind":"evaluation","step":0,"metrics":{"format_rate":0.1}})" << "\n";
  for (int step = 1; step <= 20; ++step)
    lines << R"({"kind":"update","step":)" << step << R"(,"metrics":{"reward_mean":)"
          << step << R"(,"entropy":null}})" << "\n";
  lines << "not json\n";
  lines << R"({"kind":"evaluation","step":20,"metrics":{"format_rate":0.9}})" << "\n";
  const auto values = metric_values(lines, kColumns);
  EXPECT_EQ(values.at("format_rate"), 0.9);
  EXPECT_EQ(values.at("reward_mean"), 19.5);  // of steps 19 and 20
  EXPECT_FALSE(values.contains("entropy"));
  EXPECT_FALSE(values.contains("update_rms"));
}

TEST(MetricColumns, OptimizerColumnsAreOfHiddenMatricesWithASpectrum) {
  std::stringstream lines;
  lines
      << R"({"kind":"update","step":10,"metrics":{}})" << "\n"
      << R"({"kind":"optimizer","step":10,"parameters":[)"
      << R"({"name":"a","hidden":true,"update_rms":2.0,"directions":8,"directions_passed":3.0},)"
      << R"({"name":"b","hidden":true,"update_rms":4.0,"directions":8,"directions_passed":0.4},)"
      << R"({"name":"embed","hidden":false,"update_rms":100.0,"directions":0}]})" << "\n";
  const auto values = metric_values(lines, kColumns);
  EXPECT_EQ(values.at("update_rms"), 3.0);
  EXPECT_EQ(values.at("directions_passed"), 1.7);
  EXPECT_EQ(values.at("empty_matrices"), 1.0);
}

TEST(MetricColumns, ElementwiseRulesHaveNoDirections) {
  std::stringstream lines;
  lines
      << R"({"kind":"update","step":1,"metrics":{}})" << "\n"
      << R"({"kind":"optimizer","step":1,"parameters":[)"
      << R"({"name":"a","hidden":true,"update_rms":2.0,"directions":0,"directions_passed":0}]})"
      << "\n";
  const auto values = metric_values(lines, kColumns);
  EXPECT_EQ(values.at("update_rms"), 2.0);
  EXPECT_FALSE(values.contains("directions_passed"));
  EXPECT_FALSE(values.contains("empty_matrices"));
}

}  // namespace
}  // namespace pion::lab
