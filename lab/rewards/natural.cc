// SPDX-License-Identifier: Apache-2.0
#include "lab/rewards/natural.h"

#include <algorithm>
#include <string>

namespace pion::lab {
namespace {

// 10^9 < 2^30: products and carries fit 64 bits
constexpr std::uint64_t kLimb = 1000000000;

void trim_zeros(Natural& x) {
  while (!x.empty() && x.back() == 0) x.pop_back();
}

std::ptrdiff_t zeros(const Natural& x) { return std::count(x.begin(), x.end(), 0u); }

}  // namespace

Natural natural_of(std::string_view digits) {
  Natural x;
  while (!digits.empty()) {
    const std::size_t from = digits.size() > 9 ? digits.size() - 9 : 0;
    std::uint32_t limb = 0;
    for (const char c : digits.substr(from))
      limb = 10 * limb + static_cast<std::uint32_t>(c - '0');
    x.push_back(limb);
    digits = digits.substr(0, from);
  }
  trim_zeros(x);
  return x;
}

Natural power_of_ten(int exponent) {
  return natural_of("1" + std::string(static_cast<std::size_t>(exponent), '0'));
}

Natural sum(const Natural& a, const Natural& b) {
  Natural x;
  std::uint64_t carry = 0;
  for (std::size_t i = 0; i < std::max(a.size(), b.size()) || carry > 0; ++i) {
    carry += (i < a.size() ? a[i] : 0) + (i < b.size() ? std::uint64_t{b[i]} : 0);
    x.push_back(static_cast<std::uint32_t>(carry % kLimb));
    carry /= kLimb;
  }
  return x;
}

Natural product(const Natural& a, const Natural& b) {
  // powers of ten are all zeros but one limb, and whole rows of zeros are left out
  if (static_cast<std::ptrdiff_t>(a.size()) - zeros(a) >
      static_cast<std::ptrdiff_t>(b.size()) - zeros(b))
    return product(b, a);
  Natural x(a.size() + b.size(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == 0) continue;
    std::uint64_t carry = 0;
    for (std::size_t j = 0; j < b.size() || carry > 0; ++j) {
      const std::uint64_t total =
          x[i + j] + carry + (j < b.size() ? std::uint64_t{a[i]} * b[j] : 0);
      x[i + j] = static_cast<std::uint32_t>(total % kLimb);
      carry = total / kLimb;
    }
  }
  trim_zeros(x);
  return x;
}

bool less(const Natural& a, const Natural& b) {
  if (a.size() != b.size()) return a.size() < b.size();
  return std::lexicographical_compare(a.rbegin(), a.rend(), b.rbegin(), b.rend());
}

}  // namespace pion::lab
