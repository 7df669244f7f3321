// SPDX-License-Identifier: Apache-2.0
// In assembly, so that this one file needs no flags of any instruction set.
#include "lab/bench/matrix_units.h"

#ifdef __x86_64__

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pion::bench {
namespace {

// CPUID leaf 7; register: 0 eax, 3 edx.
bool leaf_seven(unsigned subleaf, int which, int bit) {
  unsigned registers[4] = {};
  if (__get_cpuid_count(7, subleaf, &registers[0], &registers[1], &registers[2],
                        &registers[3]) == 0)
    return false;
  return (registers[which] >> bit) & 1u;
}

bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return leaf_seven(0, 3, 24) && leaf_seven(0, 3, 22) &&       // amx-tile, amx-bf16
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool has_bf16_dot() { return __builtin_cpu_supports("avx512f") && leaf_seven(1, 0, 5); }

bool has_bf16_tiles() {
  static const bool allowed = ask_for_tiles();
  return allowed;
}

void bf16_dot_rounds(std::int64_t rounds) {
  static const float pair = 1.0f;
  asm volatile(
      "vbroadcastss %[pair], %%zmm12\n vbroadcastss %[pair], %%zmm13\n"
      ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11\n vpxor %%xmm\\i, %%xmm\\i, %%xmm\\i\n .endr\n"
      "1:\n"
      ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11\n vdpbf16ps %%zmm12, %%zmm13, %%zmm\\i\n .endr\n"
      "dec %[rounds]\n jnz 1b\n vzeroupper\n"
      : [rounds] "+r"(rounds)
      : [pair] "m"(pair)
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
        "xmm9", "xmm10", "xmm11", "xmm12", "xmm13");
}

void bf16_tile_rounds(std::int64_t rounds) {
  struct alignas(64) Layout {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } layout;
  alignas(64) std::uint16_t ones[16 * 32];
  for (std::uint16_t& one : ones) one = 0x3f80;  // 1.0 in bf16
  const std::int64_t stride = 64;
  asm volatile(
      "ldtilecfg %[layout]\n"
      "tileloadd (%[ones],%[stride],1), %%tmm4\n tileloadd (%[ones],%[stride],1), "
      "%%tmm5\n"
      "tileloadd (%[ones],%[stride],1), %%tmm6\n tileloadd (%[ones],%[stride],1), "
      "%%tmm7\n"
      "tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3\n"
      "1:\n"
      "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
      "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n"
      "dec %[rounds]\n jnz 1b\n tilerelease\n"
      : [rounds] "+r"(rounds)
      : [layout] "m"(layout), [ones] "r"(ones), [stride] "r"(stride)
      : "cc", "memory");
}

}  // namespace pion::bench

#else

namespace pion::bench {
bool has_bf16_dot() { return false; }
bool has_bf16_tiles() { return false; }
void bf16_dot_rounds(std::int64_t) {}
void bf16_tile_rounds(std::int64_t) {}
}  // namespace pion::bench

#endif
