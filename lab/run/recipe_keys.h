// SPDX-License-Identifier: Apache-2.0
// Keys of a schema, one function a type.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lab/run/recipe.h"

namespace pion::lab {

inline constexpr double kMany = 0x1p40;  // more than any count

inline Key whole(std::string name, std::int64_t fallback, std::string text, double min,
                 double max = kMany) {
  return {std::move(name), fallback, std::move(text), min, max, {}};
}

inline Key real(std::string name, double fallback, std::string text, double min,
                double max) {
  return {std::move(name), fallback, std::move(text), min, max, {}};
}

inline Key flag(std::string name, bool fallback, std::string text) {
  return {std::move(name), fallback, std::move(text)};
}

inline Key word(std::string name, std::string fallback, std::string text,
                std::vector<std::string> choices = {}) {
  Key key{std::move(name), std::move(fallback), std::move(text)};
  key.choices = std::move(choices);
  return key;
}

}  // namespace pion::lab
