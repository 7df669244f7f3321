// SPDX-License-Identifier: Apache-2.0
#include "lab/files/shown_text.h"

namespace pion::lab {
namespace {

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

}  // namespace

std::string shortened(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  std::size_t head = limit * 2 / 3, tail = text.size() - (limit - head);
  // a character has at most three bytes that continue it
  for (int i = 0; i < 3 && head > 0 && continues(text[head]); ++i) --head;
  for (int i = 0; i < 3 && tail < text.size() && continues(text[tail]); ++i) ++tail;
  return std::string(text.substr(0, head)) + "[... " + std::to_string(tail - head) +
         " bytes ...]" + std::string(text.substr(tail));
}

}  // namespace pion::lab
