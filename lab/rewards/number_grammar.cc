// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/number_grammar.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

namespace pion::lab {
namespace {

constexpr std::array<std::string_view, 14> kSeparators = {
    ",\\!",     "{,}",          "\\!,",         "{\\,}",       ",",
    "\\,",      "\\;",          "\\:",          "\\ ",         "~",
    "\xC2\xA0", "\xE2\x80\x87", "\xE2\x80\x89", "\xE2\x80\xAF"};

// One of these characters, or one beyond ASCII: most texts need no further look.
bool begins_with_any(const Cursor& at, std::string_view characters) {
  return !at.rest.empty() && ((at.rest[0] & 0x80) != 0 ||
                              characters.find(at.rest[0]) != std::string_view::npos);
}

// A separator and the three digits behind it; a second one must be like the first.
std::optional<std::string_view> take_group(Cursor& at, std::string_view& separator) {
  if (!begins_with_any(at, ",{\\~")) return std::nullopt;
  for (const std::string_view each : kSeparators) {
    if (!separator.empty() && each != separator) continue;
    Cursor next = at;
    if (!next.take(each)) continue;
    const std::string_view group = next.digits();
    if (group.size() != 3) return std::nullopt;
    separator = each;
    at = next;
    return group;
  }
  return std::nullopt;
}

// Numerator and a power of ten.
std::optional<Number> take_decimal(Cursor& at) {
  Cursor next = at;
  std::string digits(next.digits());
  std::string_view separator;
  if (!digits.empty() && digits.size() <= 3 && digits[0] != '0')
    while (const auto group = take_group(next, separator)) digits += *group;
  std::string_view decimals;
  Cursor point = next;
  if (point.take(".")) decimals = point.digits();
  if (!decimals.empty()) next = point;
  if (digits.empty() && decimals.empty()) return std::nullopt;
  at = next;
  return Number{.numerator = natural_of(digits.append(decimals)),
                .denominator = power_of_ten(static_cast<int>(decimals.size()))};
}

// Digits of an exponent; one that is too large is kLargestExponent + 1.
int exponent_of(std::string_view digits) {
  int value = 0;
  for (const char c : digits)
    value = std::min(10 * value + (c - '0'), kLargestExponent + 1);
  return value;
}

std::optional<int> take_signed_digits(Cursor& at) {
  Cursor next = at;
  const bool negative = take_minus(next);
  if (!negative) next.take("+");
  const std::string_view digits = next.digits();
  if (digits.empty()) return std::nullopt;
  at = next;
  return negative ? -exponent_of(digits) : exponent_of(digits);
}

// Superscript digits as an ASCII number, or "".
std::string take_superscript_number(Cursor& at) {
  constexpr std::array<std::string_view, 11> kDigits = {
      "\xE2\x81\xB0", "\xC2\xB9",     "\xC2\xB2",     "\xC2\xB3",
      "\xE2\x81\xB4", "\xE2\x81\xB5", "\xE2\x81\xB6", "\xE2\x81\xB7",
      "\xE2\x81\xB8", "\xE2\x81\xB9", "\xE2\x81\xBB"};  // 0 to 9, minus
  std::string found;
  for (bool again = true; again;) {
    again = false;
    for (std::size_t i = 0; i < kDigits.size() && !again; ++i) {
      if (!at.take(kDigits[i])) continue;
      found += i == 10 ? '-' : static_cast<char>('0' + i);
      again = true;
    }
  }
  return found;
}

// What follows the base of a power: ^n, ^{n}, **n, superscripts.
std::optional<int> take_exponent(Cursor& at) {
  Cursor next = at;
  std::optional<int> exponent;
  const bool caret = next.take("^");
  if (caret || next.take("**")) {
    if (caret) next.gap();  // "**72** 5" is a bold number
    const bool braces = next.take("{");
    if (braces) next.gap();
    exponent = take_signed_digits(next);
    if (braces && (next.gap(), !next.take("}"))) return std::nullopt;
  } else {
    const std::string written = take_superscript_number(next);
    Cursor inside{written};
    exponent = take_signed_digits(inside);
    if (!inside.rest.empty()) return std::nullopt;
  }
  if (exponent) at = next;
  return exponent;
}

Number times_power_of_ten(Number number, int exponent) {
  if (std::abs(exponent) > kLargestExponent) return Number{};  // has no value
  Natural& part = exponent < 0 ? number.denominator : number.numerator;
  part = product(part, power_of_ten(std::abs(exponent)));
  return number;
}

std::optional<Number> take_power(Cursor& at) {
  Cursor next = at;
  if (!next.take("10")) return std::nullopt;
  const std::optional<int> exponent = take_exponent(next);
  if (!exponent) return std::nullopt;
  at = next;
  return times_power_of_ten({.numerator = {1}, .denominator = {1}}, *exponent);
}

bool take_times(Cursor& at) {
  Cursor next = at;
  next.gap();
  if (!begins_with_any(next, "\\*xX")) return false;
  if (!next.take_command("\\times") && !next.take_command("\\cdot") &&
      !next.take_any({"*", "x", "X", "\xC3\x97", "\xC2\xB7", "\xE2\x8B\x85"})) {
    // \times10 is a command and a number
    if (!next.take_any({"\\times", "\\cdot"})) return false;
  }
  next.gap();
  at = next;
  return true;
}

std::optional<Number> take_simple(Cursor& at) {
  if (std::optional<Number> power = take_power(at)) return power;
  Cursor next = at;
  std::optional<Number> value = take_decimal(next);
  if (!value) return std::nullopt;
  at = next;
  if (next.take_any({"e", "E"})) {
    const std::optional<int> exponent = take_signed_digits(next);
    const bool ends = next.rest.empty() || !is_letter(next.rest[0]);
    if (exponent && ends) {
      at = next;
      return times_power_of_ten(*std::move(value), *exponent);
    }
    next = at;
  }
  if (!take_times(next)) return value;
  const std::optional<Number> power = take_power(next);
  if (!power) return value;
  at = next;
  value->numerator = product(value->numerator, power->numerator);
  value->denominator = product(value->denominator, power->denominator);
  return value;
}

Number divided(const Number& a, const Number& b) {
  if (!has_value(a) || !has_value(b)) return Number{};
  return {.negative = a.negative != b.negative,
          .numerator = product(a.numerator, b.denominator),
          .denominator = product(a.denominator, b.numerator)};
}

// Of \frac: {a}, or a single digit.
std::optional<Number> take_argument(Cursor& at) {
  at.gap();
  if (!at.take("{")) {
    Cursor digit{at.rest.substr(0, 1)};
    const std::string_view taken = digit.digits();
    at.rest.remove_prefix(taken.size());
    if (taken.empty()) return std::nullopt;
    return Number{.numerator = natural_of(taken), .denominator = {1}};
  }
  at.gap();
  const bool negative = take_minus(at);
  std::optional<Number> value = take_simple(at);
  at.gap();
  if (!value || !at.take("}")) return std::nullopt;
  value->negative = negative;
  return value;
}

std::optional<Number> take_frac(Cursor& at) {
  Cursor next = at;
  if (!next.take_any({"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"})) return std::nullopt;
  const std::optional<Number> top = take_argument(next);
  const std::optional<Number> bottom = top ? take_argument(next) : std::nullopt;
  if (!bottom) return std::nullopt;
  at = next;
  return divided(*top, *bottom);
}

// One character: a half, two thirds.
std::optional<Number> take_vulgar(Cursor& at) {
  struct Vulgar {
    std::string_view character;
    std::uint32_t top, bottom;
  };
  constexpr std::array<Vulgar, 18> kVulgar = {{{"\xC2\xBC", 1, 4},
                                               {"\xC2\xBD", 1, 2},
                                               {"\xC2\xBE", 3, 4},
                                               {"\xE2\x85\x90", 1, 7},
                                               {"\xE2\x85\x91", 1, 9},
                                               {"\xE2\x85\x92", 1, 10},
                                               {"\xE2\x85\x93", 1, 3},
                                               {"\xE2\x85\x94", 2, 3},
                                               {"\xE2\x85\x95", 1, 5},
                                               {"\xE2\x85\x96", 2, 5},
                                               {"\xE2\x85\x97", 3, 5},
                                               {"\xE2\x85\x98", 4, 5},
                                               {"\xE2\x85\x99", 1, 6},
                                               {"\xE2\x85\x9A", 5, 6},
                                               {"\xE2\x85\x9B", 1, 8},
                                               {"\xE2\x85\x9C", 3, 8},
                                               {"\xE2\x85\x9D", 5, 8},
                                               {"\xE2\x85\x9E", 7, 8}}};
  if (!begins_with_any(at, "")) return std::nullopt;
  for (const Vulgar& each : kVulgar)
    if (at.take(each.character))
      return Number{.numerator = {each.top}, .denominator = {each.bottom}};
  return std::nullopt;
}

bool take_slash(Cursor& at) {
  Cursor next = at;
  next.gap();
  if (!next.take_any({"/", "\xE2\x81\x84", "\xE2\x88\x95"})) return false;
  next.gap();
  at = next;
  return true;
}

// digits/digits, as the second part of a mixed number.
std::optional<Number> take_ratio(Cursor& at) {
  Cursor next = at;
  const std::string_view top = next.digits();
  if (top.empty() || !take_slash(next)) return std::nullopt;
  const std::string_view bottom = next.digits();
  if (bottom.empty()) return std::nullopt;
  at = next;
  return divided({.numerator = natural_of(top), .denominator = {1}},
                 {.numerator = natural_of(bottom), .denominator = {1}});
}

// The proper fraction behind a whole number, without a sign between them, is added to it.
void take_mixed(Cursor& at, Number& whole) {
  Cursor next = at;
  const bool apart = next.gap();
  std::optional<Number> part = take_frac(next);
  if (!part) part = take_vulgar(next);
  if (!part && apart) part = take_ratio(next);
  if (!part || part->negative) return;
  if (has_value(*part) && !less(part->numerator, part->denominator)) return;
  at = next;
  part->numerator = sum(part->numerator, product(whole.numerator, part->denominator));
  whole = *std::move(part);
}

// simple, simple/simple, or a whole number that a fraction follows.
std::optional<Number> take_written(Cursor& at) {
  const std::string_view before = at.rest;
  std::optional<Number> value = take_simple(at);
  if (!value) return std::nullopt;
  Cursor next = at;
  if (take_slash(next)) {
    const std::optional<Number> bottom = take_simple(next);
    if (!bottom) return value;  // km/h
    at = next;
    return divided(*value, *bottom);
  }
  const std::string_view written = before.substr(0, before.size() - at.rest.size());
  if (std::all_of(written.begin(), written.end(), is_digit)) take_mixed(at, *value);
  return value;
}

std::string lower_case(std::string_view word) {
  std::string result(word);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

// 3 million; nothing of "millionth".
void take_scale(Cursor& at, Number& value) {
  constexpr std::array<std::pair<std::string_view, int>, 5> kScales = {
      {{"hundred", 2},
       {"thousand", 3},
       {"million", 6},
       {"billion", 9},
       {"trillion", 12}}};
  Cursor next = at;
  next.gap();
  if (next.rest.empty() || !is_letter(next.rest[0])) return;
  std::string word = lower_case(next.letters());
  if (word.ends_with('s')) word.pop_back();
  for (const auto& [name, exponent] : kScales)
    if (word == name) {
      at = next;
      if (has_value(value)) value = times_power_of_ten(std::move(value), exponent);
    }
}

}  // namespace

bool take_minus(Cursor& at) { return at.take_any({"-", "\xE2\x88\x92", "\xE2\x80\x93"}); }

bool take_superscripts(Cursor& at) { return !take_superscript_number(at).empty(); }

bool take_unit_power(Cursor& at) {
  return at.take_any({"^2", "^3", "^{2}", "^{3}", "\xC2\xB2", "\xC2\xB3"});
}

bool take_percent(Cursor& at) {
  Cursor next = at;
  next.gap();
  if (!next.take_any({"\\%", "%", "\\text{percent}", "\\text{ percent}"}) &&
      !next.take_command("percent") && !next.take_command("per cent"))
    return false;
  at = next;
  return true;
}

bool take_currency(Cursor& at) {
  constexpr std::array<std::string_view, 14> kSigns = {"\\$",          "$",
                                                       "\xC2\xA3",     "\xC2\xA5",
                                                       "\xC2\xA2",     "\xE2\x82\xAC",
                                                       "\xE2\x82\xB9", "\xE2\x82\xA9",
                                                       "US$",          "US\\$",
                                                       "\xE2\x82\xBD", "\xE2\x82\xBA",
                                                       "\xE2\x82\xBF", "\xE2\x82\xAB"};
  return at.take_any(kSigns) || at.take_command("\\pounds") ||
         at.take_command("\\euro") || at.take_command("\\textdollar") ||
         at.take_command("\\texteuro") || at.take_command("USD") ||
         at.take_command("EUR") || at.take_command("GBP");
}

std::optional<Number> take_magnitude(Cursor& at) {
  for (const auto take : {take_frac, take_vulgar, take_written})
    if (std::optional<Number> value = take(at)) {
      take_scale(at, *value);
      return value;
    }
  return std::nullopt;
}

bool changes_value(std::string_view word) {
  constexpr std::array kWords = {
      "hundred",   "hundreds",   "thousand",   "thousands",   "million", "millions",
      "billion",   "billions",   "trillion",   "trillions",   "dozen",   "dozens",
      "half",      "halves",     "third",      "thirds",      "quarter", "quarters",
      "fourth",    "fourths",    "fifth",      "fifths",      "tenth",   "tenths",
      "hundredth", "hundredths", "thousandth", "thousandths", "pi",      "sqrt",
      "or",        "and",        "to",         "times",       "plus",    "minus",
      "over",      "squared",    "cubed",      "mod"};
  return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

bool goes_on(Cursor at) {
  // words that no running text puts between an answer and the rest of its sentence
  constexpr std::array kWords = {
      "hundred",     "hundreds", "thousand",  "thousands",  "million",
      "millions",    "billion",  "billions",  "trillion",   "trillions",
      "dozen",       "dozens",   "hundredth", "hundredths", "tenths",
      "pi",          "sqrt",     "squared",   "cubed",      "thousandth",
      "thousandths", "k",        "K",         "M",          "B"};
  Cursor degree = at;
  if (degree.take_any({"^\\circ", "^{\\circ}"})) return false;
  if (at.rest.starts_with('^') || Cursor(at).take("**")) {
    Cursor power = at;
    return take_exponent(power) || at.rest.starts_with("^");
  }
  if (take_superscripts(at)) return true;
  Cursor joined = at;
  if (joined.take_any({":", ".", "_", "_{", "/"}) && !joined.digits().empty())
    return true;
  const bool apart = at.gap();
  Cursor slash = at;
  if (slash.take("/") && (slash.gap(), !slash.digits().empty())) return true;
  if (at.take_command("\\pi") || at.rest.starts_with("\\sqrt") ||
      at.take_any({"\xCF\x80", "\xE2\x88\x9A"}))
    return true;
  const std::string_view word = at.letters();
  if (word.empty() || word.size() > 11 || (word.size() == 1 && apart)) return false;
  const std::string known = word.size() == 1 ? std::string(word) : lower_case(word);
  return std::find(kWords.begin(), kWords.end(), known) != kWords.end();
}

}  // namespace pion::lab
