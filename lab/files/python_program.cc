// SPDX-License-Identifier: Apache-2.0
#include "lab/files/python_program.h"

#include <cstdlib>

#include "lab/files/installed_folder.h"

namespace pion::lab {

std::string python_program() {
  const char* chosen = std::getenv("PION_PYTHON");
  if (chosen != nullptr) return chosen;
  std::error_code error;
  const bool checkout =
      installed_folder().empty() || std::filesystem::exists(PION_CHECKOUT_VENV, error);
  return checkout ? PION_CHECKOUT_VENV : "python3";
}

std::filesystem::path python_folder(const std::string& name) {
  const std::filesystem::path installed = installed_folder() / "python";
  std::error_code error;
  return std::filesystem::exists(installed / name, error) ? installed
                                                          : PION_SOURCE_PYTHON;
}

}  // namespace pion::lab
