// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one JSON object a line, on disk as soon as it is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lab/files/durable_file.h"

namespace pion::lab {

class MetricsLog {
 public:
  // Continues after the first `keep_bytes` of an existing file, cut to whole lines: what
  // a killed run wrote after its last checkpoint is written again. NaN and Inf become
  // null.
  MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes);

  void write(const nlohmann::ordered_json& line);
  void sync() { file_.sync(); }
  std::uint64_t bytes() const { return bytes_; }

 private:
  DurableFile file_;
  std::uint64_t bytes_;
};

}  // namespace pion::lab
