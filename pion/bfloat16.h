// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace pion {

// The upper half of an IEEE float: 8 bits of exponent, 8 of significand (one implied).
// Storage only; arithmetic happens in float. Same bits as c10::BFloat16.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  explicit bfloat16(float value) : bits(round_to_nearest_even(value)) {}
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

  // Rounds up with probability equal to the discarded fraction, so that the expected
  // value is `value`: small updates are not lost. `random` is 16 uniform bits. Inf and
  // NaN keep.
  static bfloat16 round_stochastically(float value, std::uint16_t random) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    bfloat16 result;
    if ((word & 0x7f800000u) == 0x7f800000u) return bfloat16(value);
    result.bits = static_cast<std::uint16_t>((word + random) >> 16);
    return result;
  }

 private:
  static std::uint16_t round_to_nearest_even(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;  // NaN stays NaN, quiet
    return static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
};

}  // namespace pion
