// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/number.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "lab/rewards/text.h"

namespace pion::lab {
namespace {

constexpr std::uint64_t kLimb =
    1000000000;  // 10^9 < 2^30: products and carries fit 64 bits

void trim_zeros(Natural& x) {
  while (!x.empty() && x.back() == 0) x.pop_back();
}

Natural natural_of(std::string_view digits) {
  Natural x;
  while (!digits.empty()) {
    const std::size_t from = digits.size() > 9 ? digits.size() - 9 : 0;
    std::uint32_t limb = 0;
    for (const char c : digits.substr(from))
      limb = 10 * limb + static_cast<std::uint32_t>(c - '0');
    x.push_back(limb);
    digits = digits.substr(0, from);
  }
  trim_zeros(x);
  return x;
}

Natural product(const Natural& a, const Natural& b) {
  Natural x(a.size() + b.size(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == 0) continue;  // powers of ten are all zeros but one limb
    std::uint64_t carry = 0;
    for (std::size_t j = 0; j < b.size() || carry > 0; ++j) {
      const std::uint64_t sum =
          x[i + j] + carry + (j < b.size() ? std::uint64_t{a[i]} * b[j] : 0);
      x[i + j] = static_cast<std::uint32_t>(sum % kLimb);
      carry = sum / kLimb;
    }
  }
  trim_zeros(x);
  return x;
}

Natural sum(const Natural& a, const Natural& b) {
  Natural x;
  std::uint64_t carry = 0;
  for (std::size_t i = 0; i < std::max(a.size(), b.size()) || carry > 0; ++i) {
    carry += (i < a.size() ? a[i] : 0) + (i < b.size() ? std::uint64_t{b[i]} : 0);
    x.push_back(static_cast<std::uint32_t>(carry % kLimb));
    carry /= kLimb;
  }
  return x;
}

// What is left of the text; every take_ function consumes from the front or changes
// nothing.
struct Cursor {
  std::string_view rest;

  bool take(std::string_view word) {
    if (!rest.starts_with(word)) return false;
    rest.remove_prefix(word.size());
    return true;
  }
  bool take_any(std::initializer_list<std::string_view> words) {
    return std::any_of(words.begin(), words.end(), [&](auto word) { return take(word); });
  }
  bool space() {
    const std::size_t before = rest.size();
    do rest = trimmed_front(rest);
    while (take_any({"~", "\\ ", "\\,", "\\;", "\\:", "\\!"}));
    return rest.size() < before;
  }
  std::string digits() {
    std::size_t n = 0;
    while (n < rest.size() && is_digit(rest[n])) ++n;
    const std::string taken(rest.substr(0, n));
    rest.remove_prefix(n);
    return taken;
  }
};

// Between groups of three digits: a separator, and the three digits after it.
std::optional<std::string> take_group(Cursor& at) {
  Cursor next = at;
  const bool comma = next.take_any({",\\!", "{,}", ",", "\\!,"});
  if (!comma && !next.take("\\,")) return std::nullopt;
  const std::string group = next.digits();
  if (group.size() != 3) return std::nullopt;
  at = next;
  return group;
}

// Digits with an optional point: numerator and a power of ten.
std::optional<Number> take_decimal(Cursor& at) {
  Cursor next = at;
  std::string digits = next.digits();
  if (!digits.empty() && digits.size() <= 3)
    while (const auto group = take_group(next)) digits += *group;
  std::string decimals;
  Cursor point = next;
  if (point.take(".")) decimals = point.digits();
  if (!decimals.empty()) next = point;
  if (digits.empty() && decimals.empty()) return std::nullopt;
  at = next;
  return Number{.numerator = natural_of(digits + decimals),
                .denominator = natural_of("1" + std::string(decimals.size(), '0'))};
}

bool take_minus(Cursor& at) {
  return at.take_any({"-", "\xE2\x88\x92", "\xE2\x80\x93"});  // U+2212, U+2013
}

// One argument of \frac: {a}, or a single digit.
std::optional<Number> take_argument(Cursor& at) {
  at.space();
  if (!at.take("{")) {
    if (at.rest.empty() || !is_digit(at.rest[0])) return std::nullopt;
    Cursor digit{at.rest.substr(0, 1)};
    at.rest.remove_prefix(1);
    return take_decimal(digit);
  }
  at.space();
  const bool negative = take_minus(at);
  std::optional<Number> value = take_decimal(at);
  at.space();
  if (!value || !at.take("}")) return std::nullopt;
  value->negative = negative;
  return value;
}

std::optional<Number> divide(const Number& a, const Number& b) {
  if (b.numerator.empty()) return std::nullopt;
  return Number{.negative = a.negative != b.negative,
                .numerator = product(a.numerator, b.denominator),
                .denominator = product(a.denominator, b.numerator)};
}

std::optional<Number> take_frac(Cursor& at) {
  Cursor next = at;
  if (!next.take_any({"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"})) return std::nullopt;
  const std::optional<Number> top = take_argument(next);
  const std::optional<Number> bottom = top ? take_argument(next) : std::nullopt;
  if (!bottom) return std::nullopt;
  at = next;
  return divide(*top, *bottom);
}

// a/b with one slash and no unit in between.
std::optional<Number> take_slash(Cursor& at) {
  Cursor next = at;
  const std::optional<Number> top = take_decimal(next);
  next.space();
  if (!top || !next.take("/")) return std::nullopt;
  next.space();
  const std::optional<Number> bottom = take_decimal(next);
  if (!bottom) return std::nullopt;
  at = next;
  return divide(*top, *bottom);
}

// A whole number and a fraction after it, without a sign between them.
std::optional<Number> take_mixed(Cursor& at) {
  Cursor next = at;
  const std::string digits = next.digits();
  if (digits.empty()) return std::nullopt;
  const bool apart = next.space();
  std::optional<Number> part = take_frac(next);
  if (!part && apart) part = take_slash(next);
  if (!part || part->negative) return std::nullopt;
  at = next;
  part->numerator = sum(part->numerator, product(natural_of(digits), part->denominator));
  return part;
}

std::optional<Number> take_magnitude(Cursor& at) {
  for (const auto take : {take_mixed, take_frac, take_slash, take_decimal})
    if (std::optional<Number> value = take(at)) return value;
  return std::nullopt;
}

bool changes_value(const std::string& word) {
  constexpr std::array kWords = {
      "hundred", "hundreds", "thousand",  "thousands",  "million", "millions",
      "billion", "billions", "trillion",  "trillions",  "dozen",   "dozens",
      "half",    "halves",   "third",     "thirds",     "quarter", "quarters",
      "tenth",   "tenths",   "hundredth", "hundredths", "pi",      "sqrt",
      "or",      "and",      "to",        "times",      "plus",    "minus",
      "over",    "squared",  "cubed",     "mod"};
  return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

// "clips", "square feet": false if the words say something about the value.
bool take_words(Cursor& at) {
  while (!at.rest.empty()) {
    std::string word;
    while (!at.rest.empty() && is_letter(at.rest[0])) {
      word += lower(at.rest[0]);
      at.rest.remove_prefix(1);
    }
    if (word.size() < 2 || changes_value(word)) return false;
    const bool apart = !trimmed_front(at.rest).empty() && at.space();
    if (!apart && !at.rest.empty()) return false;
  }
  return true;
}

// \text{ cm}^2 and its like.
bool take_text(Cursor& at) {
  if (!at.take_any({"\\text{", "\\mathrm{", "\\textrm{", "\\mbox{", "\\textbf{"}))
    return false;
  const std::size_t end = at.rest.find('}');
  if (end == std::string_view::npos) return false;
  Cursor inside{trimmed(at.rest.substr(0, end))};
  at.rest.remove_prefix(end + 1);
  if (inside.rest.size() > 1 && !take_words(inside))
    return false;  // m, s: one letter is fine
  if (at.take_any({"^2", "^3", "^{2}", "^{3}"})) at.space();
  return true;
}

bool take_percent(Cursor& at) {
  Cursor next = at;
  next.space();
  if (!next.take_any({"\\%", "%"})) {
    if (!next.take_any({"percent", "\\text{percent}", "\\text{ percent}"})) return false;
    if (!next.rest.empty() && is_letter(next.rest[0])) return false;
  }
  at = next;
  return true;
}

// What may stand behind a number. True if nothing else does.
bool only_unit(Cursor at) {
  bool apart = at.space();
  if (at.take_any({"^\\circ", "^{\\circ}", "\xC2\xB0", "\\degree"})) apart |= at.space();
  while (take_text(at)) apart |= at.space();
  if (at.rest.empty() || at.rest == ".") return true;
  if (at.rest.ends_with('.')) at.rest.remove_suffix(1);
  return apart && take_words(at);
}

// $...$, \(...\), \[...\], \text{...}, {...}, "x =", "\approx" is not taken: it is no
// equality.
std::string_view unwrapped(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kPairs = {
      {{"$$", "$$"},
       {"$", "$"},
       {"\\(", "\\)"},
       {"\\[", "\\]"},
       {"\\text{", "}"},
       {"{", "}"}}};
  for (bool again = true; again;) {
    again = false;
    text = trimmed(text);
    for (const auto& [open, close] : kPairs) {
      if (text.size() < open.size() + close.size() || !text.starts_with(open) ||
          !text.ends_with(close))
        continue;
      const std::string_view inside =
          text.substr(open.size(), text.size() - open.size() - close.size());
      if (inside.find(close) != std::string_view::npos) continue;
      text = inside;
      again = true;
      break;
    }
  }
  const std::size_t equals = text.find('=');
  const bool one = equals != std::string_view::npos && equals == text.rfind('=');
  return one ? trimmed(text.substr(equals + 1)) : text;  // "a = 1, b = 2" is no number
}

bool take_currency(Cursor& at) {
  const bool taken = at.take_any({"\\$", "$", "\\pounds", "\xC2\xA3", "\xE2\x82\xAC",
                                  "\xC2\xA5"});  // pound, euro, yen
  if (taken) at.space();
  return taken;
}

}  // namespace

std::optional<Number> parse_number(std::string_view text) {
  Cursor at{unwrapped(text)};
  take_currency(at);
  const bool negative = take_minus(at);
  if (!negative) at.take("+");
  at.space();
  take_currency(at);
  std::optional<Number> value = take_magnitude(at);
  if (!value) return std::nullopt;
  value->percent = take_percent(at);
  if (at.rest.starts_with('$')) at.rest.remove_prefix(1);  // "\$5$": half a pair
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
