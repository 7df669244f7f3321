// SPDX-License-Identifier: Apache-2.0
#include "lab/files/read_only_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pion::lab {

ReadOnlyFile::ReadOnlyFile(std::filesystem::path path) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe would wait for somebody who writes
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  const auto fail = [&](const std::string& reason) {
    if (descriptor >= 0) ::close(descriptor);
    throw std::invalid_argument(path_.string() + ": cannot be read: " + reason);
  };
  struct stat status{};
  if (descriptor < 0 || ::fstat(descriptor, &status) != 0) fail(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail("it must be a file");
  size_ = static_cast<std::uint64_t>(status.st_size);
  descriptor_ = descriptor;
}

ReadOnlyFile::~ReadOnlyFile() { ::close(descriptor_); }

void ReadOnlyFile::read(std::uint64_t begin, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t got =
        ::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw std::invalid_argument(
          path_.string() + ": cannot be read: " +
          (got < 0 ? std::strerror(errno) : "it was truncated while in use"));
    into = into.subspan(static_cast<std::size_t>(got));
    begin += static_cast<std::uint64_t>(got);
  }
}

}  // namespace pion::lab
