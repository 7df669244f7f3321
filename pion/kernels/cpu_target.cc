// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/cpu_target.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pion {

namespace {

constexpr CpuTarget kAll[] = {CpuTarget::kPortable, CpuTarget::kAvx2, CpuTarget::kAvx512};

bool supported(CpuTarget target) {
  if (target == CpuTarget::kPortable) return true;
#ifdef PION_X86_KERNELS
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return target == CpuTarget::kAvx2 ? avx2 : avx2 && __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

std::string supported_names() {
  std::string names;
  for (const CpuTarget target : supported_cpu_targets()) {
    names += (names.empty() ? "" : ", ") + std::string(cpu_target_name(target));
  }
  return names;
}

}  // namespace

std::string_view cpu_target_name(CpuTarget target) {
  switch (target) {
    case CpuTarget::kAvx2:
      return "avx2";
    case CpuTarget::kAvx512:
      return "avx512";
    default:
      return "portable";
  }
}

std::vector<CpuTarget> supported_cpu_targets() {
  std::vector<CpuTarget> targets;
  for (const CpuTarget target : kAll) {
    if (supported(target)) targets.push_back(target);
  }
  return targets;
}

CpuTarget choose_cpu_target(std::string_view requested) {
  if (requested.empty()) return supported_cpu_targets().back();
  for (const CpuTarget target : supported_cpu_targets()) {
    if (cpu_target_name(target) == requested) return target;
  }
  throw std::invalid_argument(
      "cpu_target: PION_CPU_TARGET must be one of those that this " +
      ("machine supports (" + supported_names()) + "), got \"" + std::string(requested) +
      "\"; unset it to use the fastest");
}

CpuTarget cpu_target() {
  static const CpuTarget chosen = [] {
    const char* requested = std::getenv("PION_CPU_TARGET");
    return choose_cpu_target(requested == nullptr ? "" : requested);
  }();
  return chosen;
}

}  // namespace pion
