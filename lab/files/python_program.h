// SPDX-License-Identifier: Apache-2.0
// Which Python runs the lab's child processes, and where their files are.
#pragma once

#include <filesystem>
#include <string>

namespace pion::lab {

// PION_PYTHON of the environment, else the checkout's .venv; where an installed command
// finds no checkout, the python3 in PATH.
std::string python_program();

// The python/ of an installed command where `name` is in it, else the checkout's.
std::filesystem::path python_folder(const std::string& name);

}  // namespace pion::lab
