// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/answer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "lab/rewards/number.h"
#include "lab/rewards/text.h"

namespace pion::lab {
namespace {

constexpr std::size_t kNone = std::string_view::npos;
constexpr std::size_t kLongestArgument =
    256;  // of \\frac, in bytes: keeps the scan linear

std::optional<std::string_view> unless_blank(std::string_view text) {
  text = trimmed(text);
  return text.empty() ? std::nullopt : std::optional(text);
}

// Behind \boxed or \fbox at `at`, the place of its brace; or kNone.
std::size_t brace_of_box(std::string_view text, std::size_t at) {
  for (const std::string_view word : {"\\boxed", "\\fbox"}) {
    if (!text.substr(at).starts_with(word)) continue;
    at += word.size();
    while (at < text.size() && is_blank(text[at])) ++at;
    return at < text.size() && text[at] == '{' ? at : kNone;
  }
  return kNone;
}

std::size_t after_digits(std::string_view text, std::size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

// The end of 1,234.5 that begins at `at`; `at` itself if no number begins there.
std::size_t after_decimal(std::string_view text, std::size_t at) {
  const std::size_t start = at;
  at = after_digits(text, at);
  if (at > start && at - start <= 3)
    while (at + 3 < text.size() && text[at] == ',' &&
           after_digits(text, at + 1) == at + 4)
      at += 4;
  const std::size_t decimals =
      at < text.size() && text[at] == '.' ? after_digits(text, at + 1) : at;
  return decimals > at + 1 ? decimals : at;
}

// The end of \frac{a}{b} that begins at `at`, or `at`.
std::size_t after_frac(std::string_view text, std::size_t at) {
  const std::size_t start = at;
  bool is_frac = false;
  for (const std::string_view word : {"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"})
    if (text.substr(at).starts_with(word)) {
      is_frac = true;
      at += word.size();
      break;
    }
  for (int argument = 0; is_frac && argument < 2; ++argument) {
    if (at >= text.size() || text[at] != '{') return start;
    const std::size_t end = text.substr(at, kLongestArgument).find('}');
    if (end == kNone) return start;
    at += end + 1;
  }
  return at;
}

// The length of a minus that ends just before `at`, or 0.
std::size_t minus_before(std::string_view text, std::size_t at) {
  for (const std::string_view minus : {"-", "\xE2\x88\x92", "\xE2\x80\x93"})
    if (text.substr(0, at).ends_with(minus)) return minus.size();
  return 0;
}

// Includes a sign and a currency sign in front of the number at `at`.
std::size_t with_sign(std::string_view text, std::size_t at) {
  if (at > 0 && text[at - 1] == '$') --at;
  if (at > 0 && text[at - 1] == '\\') --at;
  const std::size_t minus = minus_before(text, at);
  if (minus == 0) return at;
  const std::string_view before = text.substr(0, at - minus);
  const bool difference =
      !before.empty() &&
      (is_digit(before.back()) || is_letter(before.back()) || before.back() == ')' ||
       before.back() == '}' || before.back() == ']');
  return difference ? at : at - minus;
}

std::string without_blanks(std::string_view text) {
  std::string kept;
  std::copy_if(text.begin(), text.end(), std::back_inserter(kept),
               [](char c) { return !is_blank(c); });
  return kept;
}

}  // namespace

std::optional<std::string_view> last_boxed(std::string_view text) {
  constexpr std::size_t kPlain = kNone;
  std::vector<std::size_t> open;  // where the content of an open box begins, or kPlain
  std::size_t start = kNone, end = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      const std::size_t brace = brace_of_box(text, i);
      if (brace == kNone) {
        ++i;  // \{, \}, \\ and the first letter of another command
      } else {
        open.push_back(brace + 1);
        i = brace;
      }
    } else if (text[i] == '{') {
      open.push_back(kPlain);
    } else if (text[i] == '}' && !open.empty()) {
      if (open.back() != kPlain && (start == kNone || open.back() > start))
        start = open.back(), end = i;
      open.pop_back();
    }
  }
  return start == kNone ? std::nullopt : unless_blank(text.substr(start, end - start));
}

std::optional<std::string_view> after_hashes(std::string_view text) {
  const std::size_t at = text.rfind("####");
  if (at == kNone) return std::nullopt;
  text.remove_prefix(at + 4);
  return unless_blank(text.substr(0, text.find('\n')));
}

std::optional<std::string_view> last_number(std::string_view text) {
  std::optional<std::string_view> last;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = after_frac(text, i);
    const bool frac = end > i;
    if (!frac) end = after_decimal(text, i);
    if (end == i) {
      ++i;
      continue;
    }
    if (!frac && end + 1 < text.size() && text[end] == '/' && is_digit(text[end + 1]))
      end = after_decimal(text, end + 1);
    if (text.substr(end).starts_with("%"))
      ++end;
    else if (text.substr(end).starts_with("\\%"))
      end += 2;
    const std::size_t start = with_sign(text, i);
    const std::string_view found = text.substr(start, end - start);
    if (parse_number(found)) last = found;
    i = end;
  }
  return last;
}

bool same_answer(std::string_view a, std::string_view b) {
  const std::optional<Number> x = parse_number(a), y = parse_number(b);
  if (x || y) return x && y && equal(*x, *y);
  return without_blanks(a) == without_blanks(b);
}

}  // namespace pion::lab
