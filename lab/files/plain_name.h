// SPDX-License-Identifier: Apache-2.0
// Names from files that become paths.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace pion::lab {

// Whether the name is one entry of a folder and no way out of it: not empty, "." or "..",
// of at most 255 bytes, without / \ or a zero byte.
bool is_file_name(std::string_view name);

// Throws std::invalid_argument, which begins with `where`, unless the name of a
// comparison's optimizer, whose runs' folders begin with it, is a name: 1 to 64 letters
// of ASCII, digits, "_", "-", "+", "." or "=", beginning with a letter, digit or "_".
void check_plain_name(std::string_view name, const std::string& where);

// `path` of something below `folder` that a file of the folder names. Should it be
// absolute or lead out of the folder, its last part alone counts; empty if that is "..".
std::filesystem::path path_within(const std::filesystem::path& folder,
                                  const std::filesystem::path& path);

// Throws std::invalid_argument for a link: what is written below a run's folder must stay
// there. Nothing, or anything else, is accepted.
void refuse_link(const std::filesystem::path& folder);

}  // namespace pion::lab
