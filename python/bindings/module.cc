// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/string.h>

#include "pion/kernels/cpu_target.h"
#include "python/bindings/bindings.h"

NB_MODULE(_pion, module) {
  module.doc() = "pion's rules, steps and routing on plain arrays.";
  pion::python::bind_rules(module);
  pion::python::bind_steps(module);
  pion::python::bind_routing(module);
#ifdef PION_JAX_FFI
  pion::python::bind_jax_ffi(module);
#endif
  module.def(
      "cpu_target", [] { return std::string(pion::cpu_target_name(pion::cpu_target())); },
      "The instruction set that the kernels use; PION_CPU_TARGET overrides it.");
}
