// SPDX-License-Identifier: Apache-2.0
#include "lab/files/plain_name.h"

#include <algorithm>
#include <stdexcept>

#include "lab/files/printable.h"

namespace pion::lab {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kLongestEntry = 255;  // bytes, of Linux' file systems
constexpr std::size_t kLongestName = 64;

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

}  // namespace

bool is_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= kLongestEntry &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

void check_plain_name(std::string_view name, const std::string& where) {
  const auto belongs = [](char c) {
    return is_alphanumeric(c) || std::string_view("_-+.=").find(c) != std::string::npos;
  };
  const bool good = !name.empty() && name.size() <= kLongestName &&
                    (is_alphanumeric(name.front()) || name.front() == '_') &&
                    std::all_of(name.begin(), name.end(), belongs);
  if (good) return;
  const std::string shown(name.substr(0, kLongestName));
  throw std::invalid_argument(
      where +
      ": an optimizer's name must be 1 to 64 letters, digits, \"_\", \"-\", \"+\", \".\" "
      "or \"=\" and begin with a letter, digit or \"_\", because its runs' folders do; "
      "got \"" +
      printable(shown) + (name.size() > kLongestName ? "...\"" : "\""));
}

fs::path path_within(const fs::path& folder, const fs::path& path) {
  const fs::path plain = path.lexically_normal();
  const bool leads_out =
      plain.is_absolute() || (plain.begin() != plain.end() && *plain.begin() == "..");
  if (!leads_out) return folder / plain;
  return is_file_name(plain.filename().string()) ? folder / plain.filename() : fs::path();
}

void refuse_link(const fs::path& folder) {
  std::error_code error;
  if (fs::is_symlink(fs::symlink_status(folder, error)))
    throw std::invalid_argument(folder.string() +
                                " must be a folder of the run itself, got a link; what "
                                "is written would land elsewhere: remove it, or make the "
                                "whole run a link");
}

}  // namespace pion::lab
