// SPDX-License-Identifier: Apache-2.0
// One kind of arithmetic problem: its numbers, its operators, and lines computed by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

// The pattern "dd?d-dd": numbers of 2, 1 and 2 digits with "?" and "-" between them.
class ArithmeticKind {
 public:
  // Throws std::invalid_argument, see make_arithmetic.
  explicit ArithmeticKind(std::string_view pattern);

  // Problems are pairs of numbers and operators, counted apart.
  std::uint64_t number_choices() const { return number_choices_; }
  std::uint64_t operator_choices() const { return operator_choices_; }
  std::string problem(std::uint64_t numbers,
                      std::uint64_t operators) const;     // "37+48-29"
  std::size_t length() const { return pattern_.size(); }  // of a problem
  std::uint64_t numbers_key() const;  // same for kinds with the same numbers

 private:
  std::string pattern_;
  std::vector<int> digits_;  // of each number
  std::string operators_;    // between them: '+', '-' or '?'
  std::uint64_t number_choices_ = 1, operator_choices_ = 1;
};

// left + right, or left - right, digit by digit as on paper. With `forget_carry` carries
// and borrows are dropped; the leading column is still written in full: 37+48=75,
// 99+99=188, 85-29=66, and 29-85=-66.
std::int64_t compute_line(std::int64_t left, char op, std::int64_t right,
                          bool forget_carry);

}  // namespace pion::lab
