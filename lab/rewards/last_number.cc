// SPDX-License-Identifier: Apache-2.0
// last_number() of answer.h: the grammar of numbers in running text, in one pass.
#include <algorithm>
#include <array>

#include "lab/rewards/answer.h"
#include "lab/rewards/number.h"
#include "lab/rewards/number_grammar.h"

namespace pion::lab {
namespace {

// What a minus in front makes a difference: 85-29, (a)-5, 50%-20%, and dashes of text.
bool ends_a_term(std::string_view before) {
  if (before.empty()) return false;
  const char c = before.back();
  return is_digit(c) || is_letter(c) || std::string_view(")}]%-").find(c) != kNone;
}

// The length of a minus that ends the text, or 0.
std::size_t minus_at_the_end(std::string_view text) {
  for (const std::string_view minus : {"-", "\xE2\x88\x92", "\xE2\x80\x93"})
    if (text.ends_with(minus)) return minus.size();
  return 0;
}

std::string_view without_blanks_at_the_end(std::string_view text) {
  constexpr int kMostBlanks = 16;  // keeps the scan linear
  for (int n = 0; n < kMostBlanks && !text.empty() && text.back() == ' '; ++n)
    text.remove_suffix(1);
  return text;
}

// Where the number at `at` begins with its currency and sign.
std::size_t with_sign(std::string_view text, std::size_t at) {
  constexpr std::array<std::string_view, 7> kSigns = {
      "\\$", "$", "\xC2\xA3", "\xC2\xA5", "\xE2\x82\xAC", "\xE2\x82\xB9", "\xE2\x82\xA9"};
  for (const std::string_view sign : kSigns)
    if (text.substr(0, at).ends_with(sign)) {
      at -= sign.size();
      break;
    }
  const std::size_t minus = minus_at_the_end(text.substr(0, at));
  if (minus > 0) return ends_a_term(text.substr(0, at - minus)) ? at : at - minus;
  // "= - 5"
  const std::string_view before = without_blanks_at_the_end(text.substr(0, at));
  const std::size_t apart = minus_at_the_end(before);
  if (apart == 0) return at;
  const bool sign =
      without_blanks_at_the_end(before.substr(0, before.size() - apart)).ends_with('=');
  return sign ? before.size() - apart : at;
}

// Digits behind letters are no number (x2, H2O, m2), except behind a command or a code.
void take_word(Cursor& at, bool is_command) {
  const std::string_view word = at.letters();
  if (is_command || word == "USD" || word == "EUR" || word == "GBP" || word == "Rs")
    return;
  while (!at.digits().empty() && at.rest.size() > 1 && at.rest[0] == '.' &&
         is_digit(at.rest[1]))
    at.rest.remove_prefix(1);
}

// {...} with balanced braces, or one character; all that is left if a brace stays open.
void take_braces(Cursor& at) {
  at.space();
  int depth = 0;
  while (!at.rest.empty()) {
    const char c = at.rest[0];
    at.rest.remove_prefix(1);
    if (c == '\\' && !at.rest.empty() && !is_letter(at.rest[0])) at.rest.remove_prefix(1);
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (depth <= 0 && c != '\\') return;
  }
}

// \sqrt{2}, \frac{\pi}{2}, \binom{5}{2}, \pm 5: numbers stand in them, but are not them.
bool take_expression(Cursor& at) {
  if (at.take_command("\\pm") || at.take_any({"\xC2\xB1", "\\pm"})) {
    at.gap();
    take_minus(at);
    take_magnitude(at);
    return true;
  }
  if (at.take_any({"\\sqrt", "\xE2\x88\x9A"})) {
    if (at.take("[")) {
      at.digits();
      at.take("]");
    }
    take_braces(at);
    return true;
  }
  if (!at.take_any({"\\frac", "\\dfrac", "\\tfrac", "\\cfrac", "\\binom", "\\dbinom"}))
    return false;
  take_braces(at);
  take_braces(at);
  return true;
}

// What goes_on() saw behind a number: ^{10}, :30, .3, /2.
void take_rest(Cursor& at) {
  for (;;) {
    Cursor next = at;
    if (take_superscripts(next)) {
      at = next;
      continue;
    }
    Cursor slash = next;
    slash.gap();
    if (slash.take("/"))
      slash.gap(), next = slash;
    else if (!next.take_any({"**", "^", "_", ":", "."}))
      return;
    next.take("{");
    take_minus(next);
    if (next.digits().empty()) return;
    next.take("}");
    at = next;
  }
}

// An exponent or index that belongs to no number: x^2, a_1, m^{-1}.
// "_72_" in Markdown is none.
bool take_script(Cursor& at, std::string_view before) {
  Cursor next = at;
  const bool follows =
      !before.empty() && (is_letter(before.back()) || is_digit(before.back()) ||
                          std::string_view(")]}").find(before.back()) != kNone);
  if (!next.take("^") && !(follows && next.take("_"))) return false;
  next.take("{");
  take_minus(next);
  next.digits();
  at = next;
  return true;
}

bool may_begin(std::string_view text, std::size_t i) {
  const char c = text[i];
  if (c == '.') {  // ".5", but not "...5" or "is.5"
    const char before = i > 0 ? text[i - 1] : ' ';
    return before != '.' && !is_digit(before) && !is_letter(before);
  }
  return is_digit(c) || c == '\\' || c == '\xC2' || c == '\xE2';
}

}  // namespace

std::optional<std::string_view> last_number(std::string_view text) {
  std::optional<std::string_view> last;
  for (std::size_t i = 0; i < text.size();) {
    Cursor at{text.substr(i)};
    if (is_letter(text[i])) {
      take_word(at, i > 0 && text[i - 1] == '\\');
      i = text.size() - at.rest.size();
      continue;
    }
    if (const auto value = may_begin(text, i) ? take_magnitude(at) : std::nullopt) {
      take_percent(at);
      const std::size_t start = with_sign(text, i), end = text.size() - at.rest.size();
      last.reset();  // of one without value an earlier number is not the answer either
      if (goes_on(at))
        take_rest(at);
      else if (has_value(*value))
        last = text.substr(start, end - start);
    } else if (take_expression(at)) {
      last.reset();
    } else if (take_script(at, text.substr(0, i))) {
      if (i > 0 && (text[i - 1] == ')' || text[i - 1] == ']')) last.reset();
    } else {
      at.rest.remove_prefix(1);
    }
    i = text.size() - at.rest.size();
  }
  return last && parse_number(*last) ? last : std::nullopt;
}

}  // namespace pion::lab
