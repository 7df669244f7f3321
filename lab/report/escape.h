// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace pion::lab::report {

// Text for an HTML element or attribute.
std::string escape_html(std::string_view text);

// JSON for a <script type="application/json">: `<`, `>` and `&` become \u003c and so on,
// so that no name or message can close the element. It parses to the same value.
std::string escape_script_json(std::string_view json);

// JavaScript for a <script>: `</script` and `<!--` get a backslash. Inside the string and
// regular expression literals where scripts hold them, that changes nothing.
std::string escape_script(std::string_view script);

}  // namespace pion::lab::report
