// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>

namespace pion::lab {

// Marks exceptions which say that a policy's own numbers are no longer finite: a run ends
// there as diverged, it does not fail.
struct Divergence {
  virtual ~Divergence() = default;
};

template <class Error>
class Diverged : public Error, public Divergence {
 public:
  using Error::Error;
};

inline bool is_divergence(const std::exception& error) {
  return dynamic_cast<const Divergence*>(&error) != nullptr;
}

}  // namespace pion::lab
