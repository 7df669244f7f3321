// SPDX-License-Identifier: Apache-2.0
// Reading a text from its front; a take that finds nothing changes nothing.
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string>
#include <string_view>

#include "lab/rewards/text.h"

namespace pion::lab {

// Blanks that ASCII does not know: no-break, en to hair space, narrow no-break,
// mathematical and ideographic space, word joiner, byte order mark.
inline constexpr std::array<std::string_view, 16> kUnicodeBlanks = {
    "\xC2\xA0",     "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84",
    "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88",
    "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\x8B", "\xE2\x80\xAF",
    "\xE2\x81\x9F", "\xE2\x81\xA0", "\xE3\x80\x80", "\xEF\xBB\xBF"};
// LaTeX's: those that are words end where no letter follows.
inline constexpr std::array<std::string_view, 6> kLatexBlanks = {"~",   "\\ ", "\\,",
                                                                 "\\;", "\\:", "\\!"};

struct Cursor {
  std::string_view rest;

  bool take(std::string_view word) {
    if (!rest.starts_with(word)) return false;
    rest.remove_prefix(word.size());
    return true;
  }
  template <class Words>
  bool take_any(const Words& words) {
    return std::any_of(words.begin(), words.end(), [&](auto word) { return take(word); });
  }
  bool take_any(std::initializer_list<std::string_view> words) {
    return take_any<std::initializer_list<std::string_view>>(words);
  }
  // \pi but not \pitch.
  bool take_command(std::string_view word) {
    if (!rest.starts_with(word)) return false;
    const std::string_view after = rest.substr(word.size());
    if (!after.empty() && is_letter(after[0])) return false;
    rest = after;
    return true;
  }
  // Any blanks: of ASCII, Unicode and LaTeX.
  bool space() {
    const std::size_t before = rest.size();
    do rest = trimmed_front(rest);
    while (!rest.empty() && take_other_blank());
    return rest.size() < before;
  }
  // The same within one line.
  bool gap() {
    Cursor next = *this;
    next.space();
    const std::size_t n = rest.size() - next.rest.size();
    if (n == 0 || rest.substr(0, n).find('\n') != std::string_view::npos) return false;
    *this = next;
    return true;
  }
  std::string_view letters() { return take_while(is_letter); }
  std::string_view digits() { return take_while(is_digit); }

 private:
  // Looks at the first byte before it compares with all of them: most are no blanks.
  bool take_other_blank() {
    if (rest[0] == '~' || rest[0] == '\\')
      return take_any(kLatexBlanks) || take_command("\\quad") || take_command("\\qquad");
    return (rest[0] & 0x80) != 0 && take_any(kUnicodeBlanks);
  }
  template <class Kind>
  std::string_view take_while(Kind is_kind) {
    std::size_t n = 0;
    while (n < rest.size() && is_kind(rest[n])) ++n;
    const std::string_view taken = rest.substr(0, n);
    rest.remove_prefix(n);
    return taken;
  }
};

}  // namespace pion::lab
