// SPDX-License-Identifier: Apache-2.0
#include "lab/data/arithmetic_kind.h"

#include <cassert>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <utility>

#include "lab/data/permutation.h"

namespace pion::lab {
namespace {

constexpr int kMostDigits = 4;
constexpr std::size_t kMostNumbers = 5;
// of a kind, so that 8 kinds taking turns still fit 63 bits
constexpr std::uint64_t kMostProblems = std::uint64_t{1} << 59;

// Numbers of `digits` digits without a leading zero; 0 itself has one digit.
std::pair<std::uint64_t, std::uint64_t> range(int digits) {
  std::uint64_t first = 1;
  for (int i = 1; i < digits; ++i) first *= 10;
  return {digits == 1 ? 0 : first, first * 10};
}

// Magnitudes a >= b >= 0 column by column from the right.
std::int64_t add_columns(std::int64_t a, std::int64_t b, bool forget_carry) {
  std::int64_t result = 0, place = 1, carry = 0;
  for (; a > 0 || b > 0; a /= 10, b /= 10, place *= 10) {
    const std::int64_t column = a % 10 + b % 10 + carry;
    if (a < 10 && b < 10) return result + column * place;
    result += column % 10 * place;
    carry = forget_carry ? 0 : column / 10;
  }
  return result;
}

std::int64_t subtract_columns(std::int64_t a, std::int64_t b, bool forget_borrow) {
  std::int64_t result = 0, place = 1, borrow = 0;
  for (; a > 0; a /= 10, b /= 10, place *= 10) {
    const std::int64_t column = a % 10 - b % 10 - borrow;
    result += (column + 10) % 10 * place;
    borrow = forget_borrow ? 0 : column < 0;
  }
  return result;
}

}  // namespace

ArithmeticKind::ArithmeticKind(std::string_view pattern) : pattern_(pattern) {
  const auto fail = [&](const std::string& what) {
    throw std::invalid_argument(
        "make_arithmetic: a kind must be a pattern of d (digit) and + - ? between "
        "numbers, such as \"dd?dd?dd\", got \"" +
        pattern_ + "\": " + what);
  };
  int digits = 0;
  for (const char c : pattern_) {
    if (c == 'd') {
      if (++digits > kMostDigits) fail("a number has at most 4 digits");
    } else if (c == '+' || c == '-' || c == '?') {
      if (digits == 0) fail("every operator must follow a number");
      digits_.push_back(std::exchange(digits, 0));
      operators_ += c;
    } else {
      fail(std::string("it holds '") + c + "'");
    }
  }
  if (digits == 0) fail("it must end with a number");
  digits_.push_back(digits);
  if (operators_.empty()) fail("it needs at least one operator");
  if (digits_.size() > kMostNumbers) fail("it has more than 5 numbers");
  for (const int each : digits_) {
    const auto [first, end] = range(each);
    if (number_choices_ > kMostProblems / 16 / (end - first))
      fail("more than 2^59 problems; take fewer digits or numbers");
    number_choices_ *= end - first;
  }
  for (const char op : operators_) operator_choices_ *= op == '?' ? 2 : 1;
}

std::string ArithmeticKind::problem(std::uint64_t numbers,
                                    std::uint64_t operators) const {
  assert(numbers < number_choices_ && operators < operator_choices_);
  std::string text;
  for (std::size_t i = 0; i < digits_.size(); ++i) {
    const auto [first, end] = range(digits_[i]);
    text += std::to_string(first + numbers % (end - first));
    numbers /= end - first;
    if (i == operators_.size()) break;
    const bool either = operators_[i] == '?';
    text += either ? (operators % 2 == 0 ? '+' : '-') : operators_[i];
    if (either) operators /= 2;
  }
  return text;
}

std::uint64_t ArithmeticKind::numbers_key() const {
  std::uint64_t key = 0;
  for (const int each : digits_) key = key * (kMostDigits + 1) + std::uint64_t(each);
  return mix_bits(key);
}

std::int64_t compute_line(std::int64_t left, char op, std::int64_t right,
                          bool forget_carry) {
  if (op == '-') right = -right;
  const std::int64_t a = std::abs(left), b = std::abs(right);
  const bool left_is_larger = a >= b;
  const bool negative = left_is_larger ? left < 0 : right < 0;
  const bool same_sign = (left < 0) == (right < 0);
  const std::int64_t magnitude = same_sign        ? add_columns(a, b, forget_carry)
                                 : left_is_larger ? subtract_columns(a, b, forget_carry)
                                                  : subtract_columns(b, a, forget_carry);
  return negative ? -magnitude : magnitude;
}

}  // namespace pion::lab
