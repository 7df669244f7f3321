// SPDX-License-Identifier: Apache-2.0
// Text from outside, looked at before a parser sees it: parsers recurse, and so does what
// destroys, copies or prints their values, so depth must be bounded first.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace pion {

// Levels of lists, objects, tables and dotted keys within one another. The deepest file
// of pion has 6; the values of 100 take a few KiB of stack.
inline constexpr int kDeepestText = 100;

// Whether JSON nests deeper than `limit` outside of its texts. No more is checked.
bool json_nests_deeper(std::string_view json, int limit = kDeepestText);

// The first place that TOML 1.0 forbids and the parser must not see.
struct TomlFlaw {
  const char* what;
  std::size_t line, column;  // from 1; the column counts bytes
};

// A character outside of texts and comments that is no printable ASCII, tab or line end,
// or brackets and dotted keys deeper than `limit`. No more is checked.
std::optional<TomlFlaw> find_toml_flaw(std::string_view toml, int limit = kDeepestText);

}  // namespace pion
