// SPDX-License-Identifier: Apache-2.0
// The machine: its name, and what it can do at most.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace pion::bench {

struct Machine {
  std::string cpu;
  int cores = 1;                     // as the system counts them
  std::vector<std::string> targets;  // that pion's kernels may use here, narrowest first
  std::string target;                // that they use
  bool bf16 = false;                 // the CPU multiplies bf16 numbers
  // Variables that limit one side: PION_CPU_TARGET pion, the others LibTorch; "A=b".
  std::vector<std::string> limits;
};
Machine this_machine();

// GB/s of bytes read, or read and written, over memory of `bytes` in all.
struct Stream {
  std::int64_t bytes = 0;
  double read_gbs = 0, update_gbs = 0;
};

// What `threads` threads reach together. Products in registers, GF/s; 0: the CPU has no
// such instruction.
struct Peaks {
  int threads = 1;
  double f32_gflops = 0;        // multiply-adds of pion's target
  double bf16_dot_gflops = 0;   // vdpbf16ps
  double bf16_tile_gflops = 0;  // tdpbf16ps
  std::vector<Stream> streams;  // smallest first

  // What the target's kernels can multiply bf16 numbers with; f32_gflops where they widen
  // them first.
  double bf16_gflops(const std::string& target) const;
  // Of the smallest measured stream that holds `bytes`.
  double update_gbs(std::int64_t bytes) const;
};

// Each figure is the best of repeated turns within about `seconds`.
Peaks measure_peaks(int threads, double seconds);

}  // namespace pion::bench
