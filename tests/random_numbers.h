// SPDX-License-Identifier: Apache-2.0
// Random numbers for the unit tests. The same seed gives the same ones on every machine.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

namespace pion {

// SplitMix64 (Steele, Lea & Flood 2014); std::normal_distribution differs between
// libraries.
class RandomNumbers {
 public:
  explicit RandomNumbers(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() {
    return static_cast<double>((bits() >> 11) + 1) * 0x1p-53;
  }  // (0, 1]
  double normal() {  // Box-Muller
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }
  // Uniform in [low, high].
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low +
           static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }

 private:
  std::uint64_t state_;
};

// n independent standard normals.
template <class T = float>
std::vector<T> gaussian(std::size_t n, std::uint64_t seed) {
  RandomNumbers random(seed);
  std::vector<T> x(n);
  for (T& value : x) value = static_cast<T>(random.normal());
  return x;
}

}  // namespace pion
