// SPDX-License-Identifier: Apache-2.0
// JSON as the lab's files hold it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace pion::lab {

// With a newline at the end; indent -1: in one line. Text that is no UTF-8, which a model
// or a command line may well hold, gets U+FFFD in its place and must not end a run.
inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
         "\n";
}

}  // namespace pion::lab
