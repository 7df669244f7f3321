// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/number.h"

#include <algorithm>
#include <array>
#include <string>

#include "lab/rewards/answer_text.h"
#include "lab/rewards/number_grammar.h"

namespace pion::lab {
namespace {

std::string taken_word(Cursor& at) {
  std::string word(at.letters());
  std::transform(word.begin(), word.end(), word.begin(), lower);
  return word;
}

// Units that stand right behind a number: 5cm. One letter alone may be a variable there.
bool is_unit(std::string_view word) {
  constexpr std::array kUnits = {"mm",  "cm",   "dm",  "km",  "mg",   "kg",  "ml",  "mL",
                                 "lb",  "lbs",  "oz",  "ft",  "in",   "yd",  "hr",  "hrs",
                                 "min", "mins", "sec", "mph", "kmph", "kWh", "kHz", "Hz",
                                 "MHz", "GHz",  "kB",  "KB",  "MB",   "GB",  "TB"};
  return std::find(kUnits.begin(), kUnits.end(), word) != kUnits.end();
}

// After a space: 5 m. Not K (thousands), nor what is a variable more often than a unit.
bool is_short_unit(char letter) {
  return std::string_view("mgshlLJNWV").find(letter) != kNone;
}

// "clips", "square feet", "km/h", "cm^2": false if the words say something of the value.
bool take_words(Cursor& at) {
  while (!at.rest.empty()) {
    const char first = at.rest[0];
    const std::string word = taken_word(at);
    if (word.empty() || changes_value(word)) return false;
    if (word.size() == 1 && !is_short_unit(first)) return false;
    take_unit_power(at);
    const bool apart = at.take_any({". ", "/", "-"}) | at.space();
    if (!apart && !at.rest.empty()) return false;
  }
  return true;
}

// \text{ cm}^2 and its like.
bool take_text(Cursor& at) {
  Cursor next = at;
  if (!take_font(next)) return false;
  const std::size_t end = next.rest.find('}');
  if (end == kNone) return false;
  Cursor inside{trimmed(next.rest.substr(0, end))};
  next.rest.remove_prefix(end + 1);
  if (inside.rest.size() > 1 && !take_words(inside))
    return false;  // A, T: one letter is a unit here
  if (take_unit_power(next)) next.space();
  at = next;
  return true;
}

// In "73 (seventy-three)" and "73 (clips in all)": words that do not change the value, or
// a number in words.
bool is_remark(std::string_view inside) {
  constexpr std::array kSpelled = {
      "zero",     "one",      "two",      "three",   "four",    "five",
      "six",      "seven",    "eight",    "nine",    "ten",     "eleven",
      "twelve",   "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
      "eighteen", "nineteen", "twenty",   "thirty",  "forty",   "fifty",
      "sixty",    "seventy",  "eighty",   "ninety",  "minus",   "negative"};
  bool spelled = false;
  Cursor at{inside};
  for (bool first = true; at.space(), !at.rest.empty(); first = false) {
    const std::string word = taken_word(at);
    if (first)
      spelled = std::find(kSpelled.begin(), kSpelled.end(), word) != kSpelled.end();
    if (word.size() < 2 && word != "a") return false;
    if (!spelled && changes_value(word)) return false;
    at.take_any({"-", ",", "."});
  }
  return true;
}

// Drops a remark at the end. False if there are brackets that are none.
bool drop_remark(std::string_view& text) {
  if (!text.ends_with(')')) return true;
  const std::size_t open = text.rfind('(');
  if (open == kNone || !is_remark(text.substr(open + 1, text.size() - open - 2)))
    return false;
  text = trimmed(text.substr(0, open));
  return true;
}

// What may stand behind a number. True if nothing else does.
bool only_unit(Cursor at) {
  if (!drop_remark(at.rest)) return false;
  bool apart = at.space();
  if (take_currency(at)) apart |= at.space();
  if (at.take_any({"^\\circ", "^{\\circ}", "\xC2\xB0", "\xC2\xBA", "\\degree"})) {
    apart |= at.space();
    if (at.take_command("C") || at.take_command("F")) apart |= at.space();
  }
  while (take_text(at)) apart |= at.space();
  if (at.rest.empty()) return true;
  Cursor unit = at;
  if (is_unit(unit.letters())) {
    take_unit_power(unit);
    if (unit.take("/") || unit.space() || unit.rest.empty()) return take_words(unit);
  }
  return apart && take_words(at);
}

// Behind the only "=": of "x <= 5" nothing is taken off.
std::string_view right_side(std::string_view text) {
  const std::size_t equals = text.find('=');
  // "a = 1, b = 2" is none
  const bool one = equals != kNone && equals == text.rfind('=');
  if (!one || (equals > 0 && std::string_view("!<>~").find(text[equals - 1]) != kNone))
    return text;
  return unwrapped(text.substr(equals + 1));
}

}  // namespace

std::optional<Number> parse_number(std::string_view text) {
  Cursor at{right_side(unwrapped(text))};
  if (take_currency(at)) at.space();
  const bool negative = take_minus(at);
  if (!negative) at.take("+");
  at.space();
  if (take_currency(at)) at.space();
  std::optional<Number> value = take_magnitude(at);
  if (!value || !has_value(*value)) return std::nullopt;
  value->percent = take_percent(at);
  if (!only_unit(at)) return std::nullopt;
  value->negative = value->negative != negative && !value->numerator.empty();
  return value;
}

bool equal(const Number& a, const Number& b) {
  if (a.negative != b.negative) return false;
  const Natural left = product(a.numerator, b.denominator),
                right = product(b.numerator, a.denominator);
  if (left == right) return true;  // also 25 and 25%
  if (a.percent == b.percent) return false;
  const Natural hundred = {100};
  return a.percent ? left == product(right, hundred) : product(left, hundred) == right;
}

}  // namespace pion::lab
