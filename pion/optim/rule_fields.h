// SPDX-License-Identifier: Apache-2.0
// The table behind keys and checks: every rule's fields with key, meaning and range.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "pion/optim/rule.h"

namespace pion {

struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;

  bool holds(double value) const;  // false for NaN and infinities
  std::string text() const;        // ">= 0", "in [0, 1)"
};

inline constexpr Range kAtLeastZero{.low = 0};
inline constexpr Range kAboveZero{.low = 0, .low_open = true};
inline constexpr Range kBelowOne{.low = 0, .high = 1, .high_open = true};
inline constexpr Range kUnitInterval{.low = 0, .high = 1};

template <class R>
using Member =
    std::variant<bool R::*, int R::*, std::int64_t R::*, double R::*, std::string R::*,
                 std::optional<double> R::*, std::optional<int> R::*, Scale R::*,
                 NonFinite R::*, Normalization R::*, Precision R::*, Cutoff R::*>;

template <class R>
struct Field {
  const char* key;
  const char* description;
  Member<R> member;
  Range range = {};  // of a number; for a Cutoff, of its value
};

// The fields of R in the order in which they are shown.
template <class R>
const std::vector<Field<R>>& rule_fields();

// A named choice of an enumeration.
template <class E>
struct Choice {
  const char* name;
  E value;
};
const std::vector<Choice<Scale>>& choices(Scale);
const std::vector<Choice<NonFinite>>& choices(NonFinite);
const std::vector<Choice<Normalization>>& choices(Normalization);
const std::vector<Choice<Precision>>& choices(Precision);

}  // namespace pion
