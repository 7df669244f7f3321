// SPDX-License-Identifier: Apache-2.0
// The character vocabulary of the arithmetic task.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lab/data/problem_set.h"

namespace pion::lab {

constexpr std::int32_t kArithmeticPad = 0;   // "<pad>"
constexpr std::int32_t kArithmeticStop = 1;  // "<eos>"

// Ids 0 and 1 are the special tokens, then "0" ... "9" and the rest, one character each.
Vocabulary arithmetic_vocabulary();
std::vector<std::int32_t> arithmetic_tokens(
    std::string_view text);  // of known characters

}  // namespace pion::lab
