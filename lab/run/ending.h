// SPDX-License-Identifier: Apache-2.0
// How a run ended: every update done is no proof that something was learned.
#pragma once

#include <cstdint>
#include <filesystem>
#include <istream>
#include <limits>
#include <string>
#include <string_view>

#include "lab/run/task_info.h"

namespace torch::nn {
class Module;
}

namespace pion::lab {

enum class EndingKind {
  kComplete,
  kDiverged,   // weights, score or the last losses are no finite numbers
  kCollapsed,  // the policy gives one answer for certain, and is no better than it was
  kUntrained,  // no update changed a weight
};

struct Ending {
  EndingKind kind = EndingKind::kComplete;
  std::string reason;  // without a full stop; "" of a complete run
};

// "complete", "diverged", "collapsed", "untrained": result.json's status.
std::string_view ending_name(EndingKind kind);

// Below it the policy is as good as certain, in nats a token or move: an answer of 30
// tokens is the same in exp(-0.3), three of four, draws or more.
inline constexpr double kCertain = 0.01;

// From which an ending follows; NaN is unknown.
struct EndingSigns {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  bool weights_finite = true, weights_moved = true;
  bool losses_finite = true;     // or gradient norms, in an update of the last tenth
  bool higher_is_better = true;  // of the score
  double score_before = kUnknown, score = kUnknown;  // first and final evaluation
  // Means of update metrics over the first and the last tenth of the updates: the task's
  // curve, as the mean reward, and the policy's entropy.
  double curve_first = kUnknown, curve_last = kUnknown;
  double entropy_first = kUnknown, entropy_last = kUnknown;
};

// Collapsed is a policy that was not certain and became so without gain: neither score
// nor curve are better than they were.
Ending ending_of(const EndingSigns& signs);

// All but `weights_*` and `score`, from the lines of metrics.jsonl; damaged ones are left
// out.
EndingSigns read_signs(std::istream& metrics, const TaskInfo& info);

// As result.json has it. Files of earlier versions called a run without a finite score
// complete: that is diverged. `kComplete` if there is no such file.
Ending read_ending(const std::filesystem::path& result);

// Of all parameters. The digest differs if a bit of one does.
bool weights_finite(const torch::nn::Module& model);
std::uint64_t weights_digest(const torch::nn::Module& model);

}  // namespace pion::lab
