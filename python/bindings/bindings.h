// SPDX-License-Identifier: Apache-2.0
// The parts of the extension module pion._pion, which knows arrays and no framework.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "pion/optim/head_layout.h"
#include "pion/optim/rule.h"
#include "pion/optim/step_all.h"

namespace pion::python {

// A rule in Python. Frozen, but for its learning rate.
struct BoundRule {
  Rule rule;
};

// Memory that somebody else keeps alive, as an integer from tensor.data_ptr().
template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void bind_rules(nanobind::module_& module);
void bind_steps(nanobind::module_& module);
void bind_routing(nanobind::module_& module);
void bind_jax_ffi(nanobind::module_& module);  // where XLA's headers were found

}  // namespace pion::python
