// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/rounding.h"

#include <stdexcept>
#include <string>

namespace pion {
namespace {

void check_sizes(const char* where, std::size_t from, std::size_t to) {
  if (from != to) {
    throw std::invalid_argument(std::string(where) +
                                ": `to` must have the size of `from`, " +
                                std::to_string(from) + ", got " + std::to_string(to));
  }
}

// The finalizer of splitmix64 (Steele, Lea, Flood 2014): every output bit depends on
// every input bit.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

void round_to_nearest(std::span<const float> from, std::span<bfloat16> to) {
  check_sizes("round_to_nearest", from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = bfloat16(from[i]);
}

void round_stochastically(std::span<const float> from, std::span<bfloat16> to,
                          std::uint64_t seed, std::uint64_t first) {
  check_sizes("round_stochastically", from.size(), to.size());
  const std::uint64_t start = rounding_start(seed);
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::uint64_t word = mix(start + (first + i) * 0x9e3779b97f4a7c15u);
    to[i] =
        bfloat16::round_stochastically(from[i], static_cast<std::uint16_t>(word >> 48));
  }
}

// Seeds 0, 1, 2, ... must not give shifted copies of one sequence: mixed before the
// counter.
std::uint64_t rounding_start(std::uint64_t seed) {
  return mix(seed + 0x9e3779b97f4a7c15u);
}

std::uint64_t rounding_seed(std::uint64_t seed, std::uint64_t parameter,
                            std::uint64_t step) {
  return mix(seed + 0x9e3779b97f4a7c15u * (parameter + 1) +
             0xd1342543de82ef95u * (step + 1));
}

}  // namespace pion
