// SPDX-License-Identifier: Apache-2.0
#include "lab/data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace pion::lab {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const auto fail = [&](const std::string& reason) {
    if (descriptor >= 0) ::close(descriptor);
    throw std::invalid_argument(path.string() + ": cannot be read: " + reason);
  };
  struct stat status{};
  if (descriptor < 0 || ::fstat(descriptor, &status) != 0) fail(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail("it must be a file");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ > 0) {  // no empty mapping exists
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (mapped == MAP_FAILED) fail(std::strerror(errno));
    data_ = static_cast<const char*>(mapped);
  }
  ::close(descriptor);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

}  // namespace pion::lab
