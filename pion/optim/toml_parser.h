// SPDX-License-Identifier: Apache-2.0
#pragma once

// toml++ without its assertions: on some malformed keys version 3.3 asserts what it then
// reports as an error by itself. Input from outside must end in that error in every
// build.
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

#include <memory>
#include <string>
#include <string_view>

#include "pion/optim/outside_text.h"

namespace pion {

// Every TOML text from outside is parsed here: refused like a syntax error, by
// toml::parse_error with its place, is also what nests deeper than kDeepestText (toml++
// bounds brackets, not dotted keys) and what is no ASCII outside of texts and comments
// (on some such keys version 3.3 reaches code that it calls unreachable).
inline toml::table parse_toml(std::string_view text, std::string_view source = {}) {
  if (const auto flaw = find_toml_flaw(text)) {
    const toml::source_position place{static_cast<toml::source_index>(flaw->line),
                                      static_cast<toml::source_index>(flaw->column)};
    throw toml::parse_error(flaw->what, place,
                            std::make_shared<const std::string>(source));
  }
  return toml::parse(text, source);
}

}  // namespace pion
