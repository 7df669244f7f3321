// SPDX-License-Identifier: Apache-2.0
#include "lab/run/metrics_log.h"

#include <algorithm>
#include <fstream>

#include "lab/run/json_text.h"

namespace pion::lab {
namespace fs = std::filesystem;
namespace {

// Cuts the file to whole lines within its first `keep` bytes and returns the length.
std::uint64_t cut(const fs::path& path, std::uint64_t keep) {
  std::error_code error;
  const std::uint64_t size = fs::file_size(path, error);
  if (error) return 0;
  std::uint64_t length = std::min(size, keep);
  std::ifstream file(path, std::ios::binary);
  while (length > 0) {
    file.seekg(static_cast<std::streamoff>(length - 1));
    if (file.get() == '\n') break;
    --length;
  }
  fs::resize_file(path, length);
  return length;
}

}  // namespace

MetricsLog::MetricsLog(const fs::path& path, std::uint64_t keep_bytes)
    : bytes_(cut(path, keep_bytes)), file_(path, DurableFile::Mode::kAppend) {}

void MetricsLog::write(const nlohmann::ordered_json& line) {
  const std::string text = json_text(line);
  file_.write(text);
  bytes_ += text.size();
}

}  // namespace pion::lab
