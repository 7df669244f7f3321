// SPDX-License-Identifier: Apache-2.0
// Where a response states its answer. All views point into the text; time is linear in
// it.
#pragma once

#include <optional>
#include <string_view>

namespace pion::lab {

// The content of the last \boxed{...} or \fbox{...} whose braces balance; of nested ones
// the inner. \{ and \} are no braces. Nothing if there is none, or it is blank.
std::optional<std::string_view> last_boxed(std::string_view text);

// The rest of the line after the last "####". Nothing if there is none, or it is blank.
std::optional<std::string_view> after_hashes(std::string_view text);

// The last number in running text: sign, currency, decimals, thousands, a/b, \frac{a}{b}
// and percent belong to it. A minus after a digit, a letter or a closing bracket is a
// difference.
std::optional<std::string_view> last_number(std::string_view text);

// Equal as numbers (see parse_number); if both are none, equal as text without blanks.
bool same_answer(std::string_view a, std::string_view b);

}  // namespace pion::lab
