// SPDX-License-Identifier: Apache-2.0
// A file of problems, with the decoding of its first ones; then it loses its second half
// while it is open.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "lab/data/problem_set.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int file = ::memfd_create("problems", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  pion::fuzz::require(file >= 0 && ::ftruncate(file, 0) == 0);
  pion::fuzz::require(::pwrite(file, data, size, 0) == static_cast<ssize_t>(size));
  pion::fuzz::accepts([&] {
    const auto problems = pion::lab::open_problem_set(path);
    pion::lab::describe_problem_set(*problems, 3);
    pion::fuzz::require(::ftruncate(file, static_cast<off_t>(size / 2)) == 0);
    pion::lab::describe_problem_set(*problems, 3);
  });
  pion::fuzz::accepts([&] { pion::lab::is_problem_file(path); });
  return 0;
}
