// SPDX-License-Identifier: Apache-2.0
// The problems of the planted study, the methods that meet on each, and where their grids
// begin.
#pragma once

#include <string>
#include <vector>

#include "benchmarks/study_runs.h"

namespace pion::study {

// Names that --only takes, in the order of the report.
struct Group {
  std::string name, title;
};
const std::vector<Group>& groups();

// The cells of a group of planted regressions: "demo", "noise", "rank", "width",
// "momentum", "native", "constant".
std::vector<Cell> planted_cells(const std::string& group);

// Muon without Nesterov, AdamW (mu, 0.99), SGD, Pion with a cutoff, at momentum mu.
Method muon(double mu = 0.95);
Method adamw(double mu = 0.95);
Method sgd(double mu = 0.95);
Method pion(double cutoff, double mu = 0.95);

}  // namespace pion::study
