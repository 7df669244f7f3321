// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace pion {

// A bound with `digits` significant digits that is itself allowed: rounded up for a lower
// bound, down for an upper one. value > 0.
inline std::string printed_bound(double value, int digits, bool lower) {
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - (digits - 1));
  const double units = value / unit;
  char text[32];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  if (const double shown = std::strtod(text, nullptr);
      lower ? shown < value : shown > value) {
    const double inside = (lower ? std::ceil(units) : std::floor(units)) * unit;
    std::snprintf(text, sizeof text, "%.*g", digits, inside);
  }
  return text;
}

}  // namespace pion
