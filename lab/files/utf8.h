// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pion::lab {

struct Utf8 {
  std::uint32_t character = 0;
  std::size_t bytes = 0;  // 0: the text does not begin with a character
};

// The first character. RFC 3629: no overlong forms, no surrogates, nothing above
// U+10FFFF.
inline Utf8 first_character(std::string_view text) {
  if (text.empty()) return {};
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const std::size_t bytes = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (text.size() < bytes) return {};
  std::uint32_t character = lead & (0xffu >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0) != 0x80) return {};
    character = character << 6 | (next & 0x3f);
  }
  constexpr std::uint32_t kFirst[] = {0x80, 0x800, 0x10000};  // of 2, 3, 4 bytes
  const bool surrogate = character >= 0xd800 && character < 0xe000;
  if (character < kFirst[bytes - 2] || surrogate || character > 0x10ffff) return {};
  return {character, bytes};
}

inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t bytes = first_character(text).bytes;
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

}  // namespace pion::lab
