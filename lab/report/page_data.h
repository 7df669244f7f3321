// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "lab/report/comparison.h"

namespace pion::lab::report {

// Everything that the page draws, as one JSON object that the scripts of lab/report/page
// read. `records` are the runs that were read in full, keyed by index into
// comparison.runs; the others appear with their scores only.
Json page_data(const Comparison& comparison, const std::map<int, RunRecord>& records);

// Parts of it; each file holds one.
Json learning_curves(const Comparison& comparison,
                     const std::map<int, RunRecord>& records);
Json layer_statistics(const Comparison& comparison,
                      const std::map<int, RunRecord>& records);
Json played_games(const Comparison& comparison, const std::map<int, RunRecord>& records);
Json sample_answers(const Comparison& comparison,
                    const std::map<int, RunRecord>& records);
Json measures(const Comparison& comparison);
Json exhibits(const Comparison& comparison, const std::map<int, RunRecord>& records);

// The run of the entrant with the best score among `records`, or the first; -1 without
// any.
int best_run(const Comparison& comparison, const Entrant& entrant,
             const std::map<int, RunRecord>& records);

// Rounded to six significant digits: half the bytes, and no eye sees the difference.
Json rounded(double value);
Json rounded(const std::vector<double>& values);

}  // namespace pion::lab::report
