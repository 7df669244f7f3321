// SPDX-License-Identifier: Apache-2.0
// What stands around an answer, and answers that are no numbers.
#pragma once

#include <string>
#include <string_view>

#include "lab/rewards/cursor.h"

namespace pion::lab {

// Without what may stand around an answer, at most 16 layers: blanks of ASCII, Unicode
// and LaTeX; $..$, $$..$$, \(..\), \[..\], {..}, \text{..} and other fonts, \boxed{..};
// *, `, _ and " of Markdown; a label ("Final answer:", "The answer is"); . , ; at the
// end.
std::string_view unwrapped(std::string_view text);

// How texts are compared: unwrapped, without blanks, $, fonts, \left and \right; \dfrac
// and \tfrac are \frac, braces around one character are dropped (\frac{1}{2} is \frac12,
// x^{2} is x^2), a Unicode minus is a minus, and (E) is E. Upper and lower case differ.
std::string plain_text(std::string_view text);

// The opening of \text{, \mathrm{ and their like, whose content is the value.
bool take_font(Cursor& at);

}  // namespace pion::lab
