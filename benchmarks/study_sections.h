// SPDX-License-Identifier: Apache-2.0
// The sections of the planted study that are no table of tuned cells.
#pragma once

#include <functional>
#include <string>

#include "lab/run/task.h"

namespace pion::study {

struct Section {
  std::string markdown;
  lab::Json json;
};
using Progress = std::function<void(const std::string&)>;  // called from any thread

// Fine-tuning from rewards: for every method F and J (see lab/tasks/forgetting.h) over a
// grid of rates on seeds 10-17; F interpolated over lr at final J = 0.1 (both
// logarithmic), and its ratio to SGD's on the same seed.
Section forgetting_section(int jobs, const Progress& progress);

// Mean loss over the last 100 of 20000 updates at constant lr 0.1, 0.01, 0.001, seeds
// 10-12.
Section least_squares_section(int jobs, const Progress& progress);

}  // namespace pion::study
