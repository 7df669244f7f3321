// SPDX-License-Identifier: Apache-2.0
// What every fuzzer of this folder shares. script/fuzz builds and runs them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// One input of the reader. libFuzzer calls it; a crash, a sanitizer's report or an
// exception that leaves it is a fault.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace pion::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A reader refuses by std::invalid_argument and by nothing else. Whether it accepted.
template <class Read>
bool accepts(Read read) {
  try {
    read();
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

inline void require(bool claim) {
  if (!claim) std::abort();
}

// The input parted at lines "---", for readers of several texts.
inline std::vector<std::string> parts_of(std::string_view text) {
  constexpr std::string_view kBorder = "\n---\n";
  std::vector<std::string> parts;
  for (std::size_t at; (at = text.find(kBorder)) != std::string_view::npos;) {
    parts.emplace_back(text.substr(0, at));
    text.remove_prefix(at + kBorder.size());
  }
  parts.emplace_back(text);
  return parts;
}

}  // namespace pion::fuzz
