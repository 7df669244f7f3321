// SPDX-License-Identifier: Apache-2.0
// Text on its way to a terminal.
#include "lab/files/printable.h"
#include "lab/files/utf8.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = pion::fuzz::text_of(data, size);
  const std::string shown = pion::lab::printable(text);
  pion::fuzz::require(pion::lab::is_utf8(shown));
  pion::fuzz::require(pion::lab::printable(shown) == shown);
  for (const char c : shown)
    pion::fuzz::require(c == '\n' || c == '\t' ||
                        (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
  pion::fuzz::require(pion::lab::printable_line(text).find('\n') == std::string::npos);
  return 0;
}
