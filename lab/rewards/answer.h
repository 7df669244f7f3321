// SPDX-License-Identifier: Apache-2.0
// Where a response states its answer. All views point into the text; time is linear in
// it.
#pragma once

#include <optional>
#include <string_view>

namespace pion::lab {

// The content of the last \boxed{...} or \fbox{...} whose braces balance; of nested ones
// the inner. \{ and \} are no braces. \boxed 72 without braces holds what stands up to
// the next blank, if that has no command. Nothing if there is none, or it is blank.
std::optional<std::string_view> last_boxed(std::string_view text);

// The rest of the line after the last "####". Nothing if there is none, or it is blank.
std::optional<std::string_view> after_hashes(std::string_view text);

// The last number in running text, by the grammar of number_grammar.h, with its sign and
// currency. A minus after a digit, a letter or a closing bracket is a difference. Digits
// of words (x2), of exponents and of indices are no numbers. Nothing if the last one has
// no value here: 1/0, 2^{10}, 2\pi, \sqrt{2}, 3:30, \frac{x}{2}, \pm 5; an earlier one
// would be no answer either.
std::optional<std::string_view> last_number(std::string_view text);

// Equal as numbers (see parse_number); if both are none, equal as text (see plain_text).
bool same_answer(std::string_view a, std::string_view b);

}  // namespace pion::lab
