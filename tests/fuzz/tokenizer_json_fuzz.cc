// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, of which the lab reads the vocabulary.
#include "lab/data/problem_set.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pion::fuzz::accepts([&] {
    pion::lab::tokenizer_fingerprint(pion::fuzz::text_of(data, size), "tokenizer.json");
  });
  return 0;
}
