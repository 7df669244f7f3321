// SPDX-License-Identifier: Apache-2.0
// config.json of a model: what the lab builds of it, and the head counts that routing
// asks.
#include "lab/models/causal_lm_config.h"
#include "pion/optim/routing.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = pion::fuzz::text_of(data, size);
  std::string written;
  pion::fuzz::accepts([&] {
    written =
        pion::lab::model_config_json(pion::lab::parse_model_config(text, "config.json"));
  });
  if (!written.empty())
    pion::fuzz::require(
        pion::fuzz::accepts([&] { pion::lab::parse_model_config(written, "written"); }));
  pion::fuzz::accepts([&] { pion::attention_shape_from_config(text); });
  return 0;
}
