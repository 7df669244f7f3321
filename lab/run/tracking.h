// SPDX-License-Identifier: Apache-2.0
// --track: mirrors metrics.jsonl with another project's own Python library.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace pion::lab {

// Throws std::invalid_argument that names the pip package if the library is not
// installed, or Python itself is missing. Writes nothing.
void check_tracker(const std::string& library);

// python/pion_track as a child process. It reads metrics.jsonl as it grows and ends when
// this object does, or when this process dies: its standard input is a pipe that closes.
class Tracker {
 public:
  Tracker(const std::string& library, const std::filesystem::path& run);
  ~Tracker();
  Tracker(const Tracker&) = delete;
  Tracker& operator=(const Tracker&) = delete;

  // Closes the pipe and waits for the last lines. "" or what went wrong.
  std::string finish();

 private:
  std::string library_;
  pid_t child_ = -1;
  int pipe_ = -1;
};

}  // namespace pion::lab
