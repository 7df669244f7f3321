// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pion::lab {

// FNV-1a, 64 bits: G. Fowler, L. Noll, K. Vo, www.isthe.com/chongo/tech/comp/fnv
class Fnv {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes)
      hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  // 16 hexadecimal digits.
  std::string text() const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text(16, '0');
    for (std::size_t i = 0; i < 16; ++i) text[i] = kDigits[hash_ >> (60 - 4 * i) & 15];
    return text;
  }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace pion::lab
