// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace pion {

// Whether `name` matches `glob`: `*` stands for any text, dots too; `?` for one
// character; all others for themselves.
bool matches_glob(std::string_view glob, std::string_view name);

}  // namespace pion
