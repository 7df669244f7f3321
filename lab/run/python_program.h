// SPDX-License-Identifier: Apache-2.0
// Which Python runs the lab's child processes, and where their files are.
#pragma once

#include <filesystem>
#include <string>

namespace pion::lab {

// PION_PYTHON of the environment, else the checkout's .venv.
std::string python_program();

// The checkout's python/ where `name` is in it, else the installed one.
std::filesystem::path python_folder(const std::string& name);

}  // namespace pion::lab
