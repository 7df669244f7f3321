// SPDX-License-Identifier: Apache-2.0
// Text of files and models on its way to a terminal.
#pragma once

#include <string>
#include <string_view>

namespace pion::lab {

// The text as a terminal may be shown it: line ends, tabs and printable UTF-8 as they
// are, everything that a terminal obeys in the form "\x1b" or "\u202e": control
// characters, carriage returns, those of Unicode (U+0080 to U+009F), marks of writing
// direction, and bytes that are no UTF-8.
std::string printable(std::string_view text);

// The same in one line: line ends are "\n", tabs "\t".
std::string printable_line(std::string_view text);

}  // namespace pion::lab
