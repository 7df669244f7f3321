// SPDX-License-Identifier: Apache-2.0
// What comparisons show of a run beside its score, from its metrics.jsonl.
#pragma once

#include <filesystem>
#include <istream>
#include <map>
#include <string>
#include <vector>

#include "lab/run/task_info.h"

namespace pion::lab {

// A value for every column that the run has: of the final evaluation, or the mean over
// the last tenth of its updates. Optimizer columns are means over hidden matrices (lines
// that do not say which are: over all); "empty_matrices" counts those of which no
// direction passed (below half a direction) under a rule that has a spectrum. Damaged
// lines are left out.
std::map<std::string, double> metric_values(std::istream& metrics,
                                            const std::vector<MetricColumn>& columns);
std::map<std::string, double> metric_values(const std::filesystem::path& run,
                                            const std::vector<MetricColumn>& columns);

// [{"metric": ..., "title": ...}, ...], as reports read them.
Json column_list(const std::vector<MetricColumn>& columns);

}  // namespace pion::lab
