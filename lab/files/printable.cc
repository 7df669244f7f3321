// SPDX-License-Identifier: Apache-2.0
#include "lab/files/printable.h"

#include <cstdint>
#include <cstdio>

#include "lab/files/utf8.h"

namespace pion::lab {
namespace {

std::string escaped(const char* form, unsigned value) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, form, value);
  return buffer;
}

// Of Unicode: C1 controls, line and paragraph separators, and what changes the direction
// of writing (marks, embeddings, overrides, isolates).
bool is_obeyed(std::uint32_t c) {
  return (c >= 0x80 && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

std::string shown(std::string_view text, bool one_line) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '\n' || byte == '\t') {
      result += one_line ? (byte == '\n' ? "\\n" : "\\t") : std::string(1, text[i]);
      ++i;
    } else if (byte < 0x20 || byte == 0x7f) {
      result += escaped("\\x%02x", byte);
      ++i;
    } else if (byte < 0x80) {
      result += text[i++];
    } else if (const Utf8 one = first_character(text.substr(i)); one.bytes == 0) {
      result += escaped("\\x%02x", byte);
      ++i;
    } else {
      result += is_obeyed(one.character) ? escaped("\\u%04x", one.character)
                                         : std::string(text.substr(i, one.bytes));
      i += one.bytes;
    }
  }
  return result;
}

}  // namespace

std::string printable(std::string_view text) { return shown(text, false); }
std::string printable_line(std::string_view text) { return shown(text, true); }

}  // namespace pion::lab
