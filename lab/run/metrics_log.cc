// SPDX-License-Identifier: Apache-2.0
#include "lab/run/metrics_log.h"

#include "lab/files/json_text.h"

namespace pion::lab {
namespace fs = std::filesystem;

MetricsLog::MetricsLog(const fs::path& path, std::uint64_t keep_bytes)
    : file_(path, DurableFile::Mode::kAppend), bytes_(file_.whole_lines(keep_bytes)) {
  file_.cut(bytes_);
}

void MetricsLog::write(const nlohmann::ordered_json& line) {
  const std::string text = json_text(line);
  file_.write(text);
  bytes_ += text.size();
}

}  // namespace pion::lab
