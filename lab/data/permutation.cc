// SPDX-License-Identifier: Apache-2.0
#include "lab/data/permutation.h"

#include <bit>
#include <cassert>

namespace pion::lab {

std::uint64_t mix_bits(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

Permutation::Permutation(std::uint64_t size, std::uint64_t key) : size_(size) {
  assert(size >= 1);
  const int bits = std::bit_width(size - 1);
  half_bits_ = (bits + 1) / 2;
  half_mask_ = (std::uint64_t{1} << half_bits_) - 1;
  for (std::uint64_t& each : keys_) {
    key += 0x9e3779b97f4a7c15u;  // splitmix64's step: 2^64 / golden ratio
    each = mix_bits(key);
  }
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  assert(index < size_);
  do {
    std::uint64_t left = index >> half_bits_, right = index & half_mask_;
    for (int round = 0; round < kRounds; ++round) {
      const std::uint64_t next = left ^ (mix_bits(right ^ keys_[round]) & half_mask_);
      left = right, right = next;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

std::uint64_t Permutation::inverse(std::uint64_t value) const {
  assert(value < size_);
  do {
    std::uint64_t left = value >> half_bits_, right = value & half_mask_;
    for (int round = kRounds; round-- > 0;) {
      const std::uint64_t previous = right ^ (mix_bits(left ^ keys_[round]) & half_mask_);
      right = left, left = previous;
    }
    value = left << half_bits_ | right;
  } while (value >= size_);
  return value;
}

std::int64_t shuffled_index(std::int64_t position, std::int64_t size,
                            std::uint64_t seed) {
  assert(position >= 0 && size >= 1);
  const auto epoch = static_cast<std::uint64_t>(position / size);
  const Permutation order(static_cast<std::uint64_t>(size), mix_bits(seed) + epoch);
  return static_cast<std::int64_t>(order(static_cast<std::uint64_t>(position % size)));
}

}  // namespace pion::lab
