// SPDX-License-Identifier: Apache-2.0
// Lines of python/pion/reward_worker.py.
#pragma once

#include <cstdint>
#include <string>

#include "lab/rewards/verifier.h"

namespace pion::lab {

// The verdict that a reply holds, or nothing if it is none: not JSON, another id, a field
// missing or of another type. `failure` says why, and is kRaised if the scorer did.
struct Reply {
  Verdict verdict;  // without its reward
  double score = 0;
  bool late = false;
  std::string problem;  // "" for a verdict
  bool raised = false;
};
Reply read_reply(const std::string& line, std::int64_t id);

// At most 300 bytes of a line, for messages.
std::string shown_line(std::string text);

}  // namespace pion::lab
