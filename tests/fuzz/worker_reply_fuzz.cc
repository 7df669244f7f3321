// SPDX-License-Identifier: Apache-2.0
// Lines of the Python workers: verdicts, tokens, texts.
#include <cmath>

#include "lab/models/tokenizer_reply.h"
#include "lab/rewards/worker_reply.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string line(pion::fuzz::text_of(data, size));
  const pion::lab::Reply reply = pion::lab::read_reply(line, 7);
  if (reply.problem.empty()) pion::fuzz::require(std::isfinite(reply.score));
  pion::fuzz::accepts([&] {
    for (const std::int64_t token : pion::lab::read_tokens_reply(line))
      pion::fuzz::require(token >= 0);
  });
  pion::fuzz::accepts([&] { pion::lab::read_text_reply(line); });
  return 0;
}
