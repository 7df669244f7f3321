// SPDX-License-Identifier: Apache-2.0
// Files that survive a kill or a full disk: written in full, fsynced, renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace pion::lab {

// Opens `path` with the flags of open(2), never through a link, and only what is a file
// or, with O_CREAT, becomes one. Throws std::runtime_error.
int open_own_file(const std::filesystem::path& path, int how);

// A new file, in the place of whatever has its name, or an existing one that is
// continued. Links are not followed. Every write is complete or throws
// std::runtime_error with the path and the system's reason ("no space left on device").
class DurableFile {
 public:
  enum class Mode { kCreate, kAppend };
  DurableFile(std::filesystem::path path, Mode mode);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void sync();  // to the disk; throws as well if the file was removed meanwhile
  // Of a file that is continued: the length of its whole lines within the first `most`
  // bytes, and cutting it.
  std::uint64_t whole_lines(std::uint64_t most) const;
  void cut(std::uint64_t length);
  void close();  // sync, then close with its error checked

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Makes renames and new names in a directory durable.
void sync_directory(const std::filesystem::path& directory);

// Writes `text` to a temporary name beside `path`, fsyncs, renames: a reader sees the old
// file or the new one. On an error the temporary is removed and the old file is as it
// was.
void replace_file(const std::filesystem::path& path, std::string_view text);

// Removes what replace_file left in `directory` when its process was killed. For a
// directory that no other process writes to.
void clean_temporaries(const std::filesystem::path& directory);

}  // namespace pion::lab
