// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace pion::lab {

// The folder of an installed command's files (recipes, the page of reports, workers):
// share/pion beside its bin, wherever that was moved to. Empty for a command that lies in
// its build folder; the files are then the checkout's.
std::filesystem::path installed_folder();

}  // namespace pion::lab
