// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace pion::lab {

// A file whose parts are read when they are needed. It is not mapped: a file that is
// truncated meanwhile, or a disk that fails, is an error with its name and no signal that
// ends the process. Reading is safe from several threads.
class ReadOnlyFile {
 public:
  // Throws std::invalid_argument with the path and the system's reason.
  explicit ReadOnlyFile(std::filesystem::path path);
  ~ReadOnlyFile();
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;

  std::uint64_t size() const { return size_; }  // when it was opened
  // All of `into`, from byte `begin` on. Throws std::invalid_argument if it is not there
  // any more.
  void read(std::uint64_t begin, std::span<std::byte> into) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace pion::lab
