// SPDX-License-Identifier: Apache-2.0
// Answers of a model: where they stand, and numbers. The input is a response; after a
// line "---" another answer to compare with.
#include "lab/rewards/answer.h"
#include "lab/rewards/number.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pion::lab;
  const auto parts = pion::fuzz::parts_of(pion::fuzz::text_of(data, size));
  const std::string_view response = parts[0], other = parts.back();
  for (const auto extract : {last_boxed, after_hashes, last_number})
    if (const auto found = extract(response)) {
      same_answer(*found, other);
      pion::fuzz::require(found->empty() || (found->data() >= response.data() &&
                                             found->data() + found->size() <=
                                                 response.data() + response.size()));
    }
  pion::fuzz::require(same_answer(response, other) == same_answer(other, response));
  if (const auto number = parse_number(response))
    pion::fuzz::require(equal(*number, *number));
  return 0;
}
