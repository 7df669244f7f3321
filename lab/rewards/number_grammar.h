// SPDX-License-Identifier: Apache-2.0
// Which characters are a number: one grammar for whole texts (number.h) and for running
// text (answer.h).
//
//   magnitude  = (mixed | fraction | simple) [gap scale]
//   mixed      = digits [gap] (\frac.. | U+00BD..) | digits gap digits/digits, if proper
//   fraction   = \frac, \dfrac, \tfrac, \cfrac of two arguments, each one digit or
//                {[sign] simple}; simple [gap] / [gap] simple; U+00BD and its like
//   simple     = decimal [e [sign] digits] | decimal times power | power
//   power      = 10^n, 10^{n}, 10**n, 10 and superscript digits
//   times      = \times \cdot * x and U+00D7, U+00B7, U+22C5, with gaps
//   decimal    = digits [groups] [. digits] | . digits
//   groups     = separator and three digits, again and again with one separator, after
//                one to three digits that do not begin with 0
//   separator  = ,  {,}  ,\!  \!,  \,  {\,}  \;  \:  "\ "  ~  U+00A0 U+2007 U+2009 U+202F
//   scale      = hundred, thousand, million, billion, trillion, or their plurals
//
// A gap is blanks within a line. No plain blank separates groups ("in 12 345 people" is
// two numbers), a point is never a separator, and other powers (2^{10}) are no numbers.
#pragma once

#include <optional>
#include <string_view>

#include "lab/rewards/cursor.h"
#include "lab/rewards/number.h"

namespace pion::lab {

// Powers of ten beyond it are written but have no value: float64 ends at 308.
constexpr int kLargestExponent = 1000;

// What is written as a number and has no value, 1/0 or 1e999999, has denominator 0.
inline bool has_value(const Number& number) { return !number.denominator.empty(); }

std::optional<Number> take_magnitude(Cursor& at);
bool take_minus(Cursor& at);     // - and U+2212, U+2013
bool take_percent(Cursor& at);   // [gap] (% | \% | percent | \text{ percent})
bool take_currency(Cursor& at);  // a sign, or a code such as USD
// The powers of units: ^2, ^{3}, U+00B2, U+00B3.
bool take_unit_power(Cursor& at);
bool take_superscripts(Cursor& at);  // of digits, in Unicode

// "million", "dozen", "squared": the words behind a number say something of its value.
bool changes_value(std::string_view lower_case_word);
// Whether what follows a number makes another value of it: ^n, :30, /3, \pi, "dozen".
bool goes_on(Cursor at);

}  // namespace pion::lab
