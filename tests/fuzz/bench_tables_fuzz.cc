// SPDX-License-Identifier: Apache-2.0
// A file of `pion bench --json`.
#include "lab/bench/tables.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(pion::fuzz::text_of(data, size));
  pion::fuzz::accepts([&] { pion::bench::markdown_of_text(text); });
  return 0;
}
