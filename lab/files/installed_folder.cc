// SPDX-License-Identifier: Apache-2.0
#include "lab/files/installed_folder.h"

#include <system_error>

namespace pion::lab {

std::filesystem::path installed_folder() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const auto folder =
      (program.parent_path() / PION_DATA_FROM_BIN / "pion").lexically_normal();
  return std::filesystem::is_directory(folder, error) ? folder : std::filesystem::path();
}

}  // namespace pion::lab
