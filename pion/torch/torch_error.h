// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <stdexcept>
#include <utility>

namespace pion {

// Runs `work`; what the layers below throw becomes a c10::Error of the same words.
template <class Work>
auto with_torch_errors(Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK(false, error.what());
  }
}

}  // namespace pion
