// SPDX-License-Identifier: Apache-2.0
// Natural numbers of any length: what exact comparisons of answers need of them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pion::lab {

// Little-endian in base 10^9, without leading zeros; empty is 0.
using Natural = std::vector<std::uint32_t>;

Natural natural_of(std::string_view digits);  // ASCII digits alone; "" is 0
Natural power_of_ten(int exponent);           // >= 0
Natural sum(const Natural& a, const Natural& b);
Natural product(const Natural& a, const Natural& b);
bool less(const Natural& a, const Natural& b);

}  // namespace pion::lab
