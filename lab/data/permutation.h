// SPDX-License-Identifier: Apache-2.0
// Orders of n things that need no memory.
#pragma once

#include <array>
#include <cstdint>

namespace pion::lab {

// Mixes 64 bits: the finalizer of splitmix64, G. Steele et al., OOPSLA 2014.
std::uint64_t mix_bits(std::uint64_t x);

// A pseudo-random bijection of [0, size): a Feistel network of 6 rounds on the smallest
// even number of bits that holds `size`, applied until the value lies inside (at most 4
// times on average). The same on every machine.
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t key);  // size >= 1
  std::uint64_t operator()(std::uint64_t index) const;
  std::uint64_t inverse(std::uint64_t value) const;
  std::uint64_t size() const { return size_; }

 private:
  static constexpr int kRounds = 6;
  std::uint64_t size_, half_mask_;
  int half_bits_;
  std::array<std::uint64_t, kRounds> keys_;
};

// Item `position` of an endless walk over [0, size) that visits everything once an epoch,
// each epoch in another order: a run resumes from `position` alone.
std::int64_t shuffled_index(std::int64_t position, std::int64_t size, std::uint64_t seed);

}  // namespace pion::lab
