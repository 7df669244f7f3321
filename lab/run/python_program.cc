// SPDX-License-Identifier: Apache-2.0
#include "lab/run/python_program.h"

#include <cstdlib>

namespace pion::lab {

std::string python_program() {
  const char* chosen = std::getenv("PION_PYTHON");
  return chosen != nullptr ? chosen : PION_DEFAULT_PYTHON;
}

std::filesystem::path python_folder(const std::string& name) {
  const std::filesystem::path checkout = PION_SOURCE_PYTHON;
  std::error_code error;
  return std::filesystem::exists(checkout / name, error) ? checkout
                                                         : PION_INSTALLED_PYTHON;
}

}  // namespace pion::lab
