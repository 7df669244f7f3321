// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/cpu_target.h"

#ifdef PION_X86_KERNELS
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pion {

namespace {

constexpr CpuTarget kAll[] = {CpuTarget::kPortable, CpuTarget::kAvx2, CpuTarget::kAvx512,
                              CpuTarget::kAvx512Bf16, CpuTarget::kAmxBf16};

#ifdef PION_X86_KERNELS
// AMX-TILE and AMX-BF16: bits 24 and 22 of EDX of leaf 7. The tile registers must be
// asked for, once per process; the kernel refuses where it does not save them.
bool supports_amx() {
#if defined(__linux__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr unsigned kAmx = 1u << 24 | 1u << 22;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return (edx & kAmx) == kAmx &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool supported(CpuTarget target) {
  static const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f");
  static const bool bf16 = avx512 && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512bf16");
  static const bool amx = bf16 && supports_amx();
  switch (target) {
    case CpuTarget::kPortable:
      return true;
    case CpuTarget::kAvx2:
      return avx2;
    case CpuTarget::kAvx512:
      return avx512;
    case CpuTarget::kAvx512Bf16:
      return bf16;
    case CpuTarget::kAmxBf16:
      return amx;
  }
  return false;
}

CpuTarget fastest() {
  const CpuTarget widest = supported_cpu_targets().back();
  const bool slow_bf16 = widest == CpuTarget::kAvx512Bf16 && __builtin_cpu_is("intel");
  return slow_bf16 ? CpuTarget::kAvx512 : widest;
}
#else
bool supported(CpuTarget target) { return target == CpuTarget::kPortable; }
CpuTarget fastest() { return CpuTarget::kPortable; }
#endif

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
    case CpuTarget::kAvx512Bf16:
      return "avx512_bf16";
    case CpuTarget::kAmxBf16:
      return "amx_bf16";
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
  if (requested.empty()) return fastest();
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
