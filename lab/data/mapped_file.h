// SPDX-License-Identifier: Apache-2.0
// A file seen as memory, read-only.
#pragma once

#include <filesystem>
#include <string_view>

namespace pion::lab {

class MappedFile {
 public:
  // Throws std::invalid_argument with the path and the system's reason.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;  // page aligned; null if the file is empty
  std::size_t size_ = 0;
};

}  // namespace pion::lab
