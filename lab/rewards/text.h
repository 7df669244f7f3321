// SPDX-License-Identifier: Apache-2.0
// ASCII letters, digits and blanks, whatever the locale.
#pragma once

#include <cstddef>
#include <string_view>

namespace pion::lab {

constexpr std::size_t kNone = std::string_view::npos;  // no place in a text

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}
constexpr bool is_letter(char c) { return lower(c) >= 'a' && lower(c) <= 'z'; }
constexpr bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}
constexpr std::string_view trimmed_front(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  return text;
}
constexpr std::string_view trimmed(std::string_view text) {
  text = trimmed_front(text);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace pion::lab
