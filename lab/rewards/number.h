// SPDX-License-Identifier: Apache-2.0
// Numbers as people and models write them, compared exactly: no rounding, any length.
#pragma once

#include <optional>
#include <string_view>

#include "lab/rewards/natural.h"

namespace pion::lab {

struct Number {
  bool negative = false;  // never of 0
  Natural numerator;
  Natural denominator;   // > 0
  bool percent = false;  // written with a percent sign; not yet divided by 100
};

// The whole of `text` as one number, or nothing. number_grammar.h has the grammar:
//
//   integers, decimals  72   -3.50   .5   5.   007
//   thousands           1,234,567   1{,}234   10,\!000   1\,234, thin and no-break spaces
//   powers of ten       1e3   5\times10^{3}   10^{-2}, exponents of at most 1000
//   fractions           3/4   \frac{3}{4}   \dfrac34   -\tfrac{3}{4}, one character
//   mixed numbers       2 1/2   2\frac{1}{2}
//   scales              3 million
//   percent             25%   25\%   25 percent
//
// Around it: what unwrapped() takes off (answer_text.h), "x =", a sign, a currency before
// or after. Behind it: degrees; \text{ cm}^2 and its like; a unit of a short list (5cm,
// or 5 m after a space); words of two letters and more after a space, "72 clips", unless
// they say something about the value ("2 pi", "3 dozen"); a remark, "73 (seventy-three)".
std::optional<Number> parse_number(std::string_view text);

// The same rational number. A percentage equals its hundredth; if one side alone has a
// percent sign, also the number before it: "what percent?" is answered by 25 and by 25%.
bool equal(const Number& a, const Number& b);

}  // namespace pion::lab
