// SPDX-License-Identifier: Apache-2.0
// Numbers as people and models write them, compared exactly: no rounding, any length.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace pion::lab {

// A natural number, little-endian in base 10^9, without leading zeros; empty is 0.
using Natural = std::vector<std::uint32_t>;

struct Number {
  bool negative = false;  // never of 0
  Natural numerator;
  Natural denominator;   // > 0
  bool percent = false;  // written with a percent sign; not yet divided by 100
};

// The whole of `text` as one number, or nothing:
//
//   integers, decimals  72   -3.50   .5   5.   007
//   thousands           1,234,567   1{,}234   10,\!000   1\,234: groups of three
//   fractions           3/4   \frac{3}{4}   \dfrac34   -\tfrac{3}{4}
//   mixed numbers       2 1/2   2\frac{1}{2}
//   signs               + - and the Unicode minus and en dash
//   around it           $...$   \(...\)   \text{...}   currency signs   x =   a period
//   percent             25%   25\%   25 percent
//   units after it      \text{ cm}, \mathrm{cm} with a power; degrees; words of two
//                       letters and more after a space, "72 clips", unless they change
//                       the value: "3 million", "2 pi"
std::optional<Number> parse_number(std::string_view text);

// The same rational number. A percentage equals its hundredth; if one side alone has a
// percent sign, also the number before it: "what percent?" is answered by 25 and by 25%.
bool equal(const Number& a, const Number& b);

}  // namespace pion::lab
