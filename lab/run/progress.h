// SPDX-License-Identifier: Apache-2.0
// What a run says while it works: one live line on a terminal, a plain line now and then
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "lab/run/task_info.h"

namespace pion::lab {

class Progress {
 public:
  // `first` updates are done already. Silent if `quiet`.
  Progress(const TaskInfo& info, std::int64_t first, std::int64_t total, bool quiet);
  ~Progress();

  void update(std::int64_t done, const Json& metrics);
  void evaluation(std::int64_t done, const Json& metrics);
  void say(const std::string& line);   // a line that stays
  void warn(const std::string& what);  // the same, on standard error if quiet

 private:
  std::string status(std::int64_t done) const;
  void show(std::int64_t done, bool force);

  const TaskInfo& info_;
  std::int64_t first_, total_;
  bool quiet_, terminal_;
  bool line_open_ = false;
  std::chrono::steady_clock::time_point started_, shown_;
  std::string curve_, score_;
};

// "1 h 02 min", "3 min 20 s", "12 s".
std::string duration_text(double seconds);

}  // namespace pion::lab
