// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "pion/optim/outside_text.h"

namespace pion {

// Every JSON text from outside is parsed here or by try_json. Throws
// std::invalid_argument whose message follows a subject: "must be JSON: ...", "must nest
// at most 100 levels deep, got more". `Json` is nlohmann::json or ordered_json.
template <class Json>
Json parse_json(std::string_view text) {
  if (json_nests_deeper(text))
    throw std::invalid_argument("must nest at most " + std::to_string(kDeepestText) +
                                " levels deep, got more");
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const typename Json::exception& error) {
    throw std::invalid_argument(std::string("must be JSON: ") + error.what());
  }
}

// A discarded value (is_discarded(), of no type) where parse_json throws.
template <class Json>
Json try_json(std::string_view text) {
  if (json_nests_deeper(text)) return Json(Json::value_t::discarded);
  return Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

// A whole number that 64 bits with sign hold; nothing for 1e19, 1.0, 2^63 or text, of
// which get<std::int64_t>() makes something or worse.
template <class Json>
std::optional<std::int64_t> json_integer(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.template get<std::uint64_t>() >
          static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return std::nullopt;
  return value.template get<std::int64_t>();
}

}  // namespace pion
