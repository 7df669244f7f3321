// SPDX-License-Identifier: Apache-2.0
// state.json of a checkpoint.
#include "lab/run/checkpoint_state.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pion::fuzz::accepts([&] {
    const auto checkpoint =
        pion::lab::parse_checkpoint_state(pion::fuzz::text_of(data, size), "state.json");
    pion::lab::Json copy = checkpoint.task_state;  // as tasks take it
    pion::fuzz::require(copy.dump() == checkpoint.task_state.dump());
  });
  return 0;
}
