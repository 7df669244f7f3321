// SPDX-License-Identifier: Apache-2.0
#include "lab/files/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pion::lab {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kTemporary = ".tmp";  // NAME.tmpPID

bool is_temporary(const std::string& name) {
  const std::size_t mark = name.rfind(kTemporary);
  if (mark == std::string::npos || mark == 0) return false;
  const std::string process = name.substr(mark + kTemporary.size());
  return !process.empty() && process.find_first_not_of("0123456789") == std::string::npos;
}

[[noreturn]] void fail(const std::string& what, const fs::path& path, int error) {
  std::string remedy;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    remedy = "; free some space or write elsewhere with --out";
  throw std::runtime_error(what + " " + path.string() + ": " + std::strerror(error) +
                           remedy);
}

}  // namespace

int open_own_file(const fs::path& path, int how) {
  // O_NONBLOCK: the writing end of a pipe without reader would wait for one
  const int descriptor =
      ::open(path.c_str(), how | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  const int error = errno;
  if (descriptor < 0 && error == ELOOP)
    throw std::runtime_error("cannot write " + path.string() +
                             ": it is a link, which is not followed; remove it");
  if (descriptor < 0) fail("cannot write", path, error);
  struct stat status{};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw std::runtime_error("cannot write " + path.string() +
                             ": it must be a file; remove it");
  }
  return descriptor;
}

DurableFile::DurableFile(fs::path path, Mode mode) : path_(std::move(path)) {
  if (mode == Mode::kAppend) {
    descriptor_ = open_own_file(path_, O_RDWR | O_CREAT | O_APPEND);
    return;
  }
  // whatever has the name is no part of the new file, be it a link to somewhere
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT) fail("cannot write", path_, errno);
  descriptor_ = open_own_file(path_, O_WRONLY | O_CREAT | O_EXCL);
}

DurableFile::~DurableFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void DurableFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write", path_, errno);
    bytes = bytes.subspan(
        static_cast<std::size_t>(written));  // a short write goes on, or fails next
  }
}

void DurableFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void DurableFile::sync() {
  if (::fsync(descriptor_) != 0) fail("cannot write", path_, errno);
  struct stat status{};
  if (::fstat(descriptor_, &status) == 0 && status.st_nlink == 0)
    throw std::runtime_error("cannot write " + path_.string() +
                             ": it was removed while it was written");
}

void DurableFile::cut(std::uint64_t length) {
  if (::ftruncate(descriptor_, static_cast<off_t>(length)) != 0)
    fail("cannot write", path_, errno);
}

std::uint64_t DurableFile::whole_lines(std::uint64_t most) const {
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) fail("cannot read", path_, errno);
  std::uint64_t length = std::min(most, static_cast<std::uint64_t>(status.st_size));
  std::array<char, 4096> part;
  while (length > 0) {
    const std::uint64_t size = std::min<std::uint64_t>(length, part.size());
    const ssize_t got =
        ::pread(descriptor_, part.data(), size, static_cast<off_t>(length - size));
    if (got < 0 && errno == EINTR) continue;
    if (got != static_cast<ssize_t>(size))
      fail("cannot read", path_, got < 0 ? errno : EIO);
    for (auto at = static_cast<std::size_t>(size); at > 0; --at, --length)
      if (part[at - 1] == '\n') return length;
  }
  return 0;
}

void DurableFile::close() {
  sync();
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot write", path_, errno);
}

void sync_directory(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail("cannot open", directory, errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // some network file systems cannot sync a directory and say EINVAL
  if (result != 0 && error != EINVAL) fail("cannot sync", directory, error);
}

void replace_file(const fs::path& path, std::string_view text) {
  const fs::path temporary =
      path.string() + std::string(kTemporary) + std::to_string(::getpid());
  try {
    DurableFile file(temporary, DurableFile::Mode::kCreate);
    file.write(text);
    file.close();
    fs::rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void clean_temporaries(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
    if (is_temporary(entry.path().filename().string()) &&
        entry.symlink_status(error).type() == fs::file_type::regular)
      leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) fs::remove(path, error);
}

}  // namespace pion::lab
