// SPDX-License-Identifier: Apache-2.0
#include "lab/run/checkpoint_state.h"

#include <stdexcept>

#include "pion/optim/json_parser.h"

namespace pion::lab {

Checkpoint parse_checkpoint_state(std::string_view text, const std::string& where) {
  const auto fail = [&](const std::string& what) {
    throw std::invalid_argument(where + ": " + what);
  };
  if (json_nests_deeper(text))
    fail("nests deeper than " + std::to_string(kDeepestText) +
         " levels; it is no checkpoint of pion");
  const Json json = try_json<Json>(text);
  if (json.is_discarded()) fail("is no JSON, or truncated");
  if (!json.is_object()) fail("must hold an object");
  const auto member = [&](const char* name) -> const Json& {
    const auto at = json.find(name);
    if (at == json.end())
      fail("lacks \"" + std::string(name) + "\"; it is no checkpoint of pion");
    return *at;
  };
  const auto natural = [&](const char* name) {
    const Json& value = member(name);
    if (!value.is_number_unsigned())
      fail("\"" + std::string(name) + "\" must be a whole number >= 0");
    return value.get<std::uint64_t>();
  };
  if (natural("format") != kCheckpointFormat)
    fail("has format " + std::to_string(natural("format")) +
         "; this version reads format " + std::to_string(kCheckpointFormat));
  Checkpoint checkpoint;
  if (!member("task").is_string()) fail("\"task\" must be text");
  checkpoint.head.task = member("task").get<std::string>();
  if (natural("step") > 1ULL << 53) fail("\"step\" must be below 2^53");
  checkpoint.head.step = static_cast<std::int64_t>(natural("step"));
  checkpoint.head.metrics_bytes = natural("metrics_bytes");
  if (!member("wall_seconds").is_number()) fail("\"wall_seconds\" must be a number");
  checkpoint.head.wall_seconds = member("wall_seconds").get<double>();
  checkpoint.task_state = member("state");
  return checkpoint;
}

}  // namespace pion::lab
