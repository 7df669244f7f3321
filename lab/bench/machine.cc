// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/machine.h"

#include <algorithm>
#include <barrier>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "lab/bench/matrix_units.h"
#include "lab/bench/probe_kernel.h"
#include "lab/bench/stopwatch.h"
#include "pion/kernels/cpu_target.h"

namespace pion::bench {
namespace {

struct Probes {
  float (*multiply_add_rounds)(std::size_t);
  double (*multiply_add_flops)();
  float (*read_stream)(const float*, std::size_t);
  void (*update_stream)(float*, std::size_t);
};

// The target's vectors; those with matrix units have AVX-512.
Probes probes_of(const std::string& target) {
#ifdef PION_X86_KERNELS
  if (target.starts_with("avx512") || target.starts_with("amx"))
    return {avx512::multiply_add_rounds, avx512::multiply_add_flops, avx512::read_stream,
            avx512::update_stream};
  if (target == "avx2")
    return {avx2::multiply_add_rounds, avx2::multiply_add_flops, avx2::read_stream,
            avx2::update_stream};
#endif
  (void)target;
  return {portable::multiply_add_rounds, portable::multiply_add_flops,
          portable::read_stream, portable::update_stream};
}

// The smallest time in which `threads` threads, started together, have each done
// work(thread), within about `seconds` and 3 turns at least.
double best_time(int threads, double seconds, const std::function<void(int)>& work) {
  constexpr int kFewestTurns = 3;
  double best = 1e30;
  bool go_on = true;
  int turns = 0;
  const Clock::time_point begin = Clock::now();
  Clock::time_point start;
  std::barrier ready(threads), done(threads);
  const auto loop = [&](int thread) {
    while (go_on) {
      ready.arrive_and_wait();
      if (thread == 0) start = Clock::now();
      work(thread);
      done.arrive_and_wait();
      if (thread == 0) {
        best = std::min(best, seconds_since(start));
        go_on = ++turns < kFewestTurns || seconds_since(begin) < seconds;
      }
      ready.arrive_and_wait();  // everybody sees go_on
    }
  };
  std::vector<std::jthread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(loop, thread);
  loop(0);
  others.clear();
  return best;
}

double gflops(int threads, double seconds, double flops_of_round,
              const std::function<void(std::int64_t)>& rounds) {
  const auto count = static_cast<std::int64_t>(2e8 / flops_of_round);  // 0.1 to 3 ms
  const double time = best_time(threads, seconds, [&](int) { rounds(count); });
  return 1e-9 * threads * static_cast<double>(count) * flops_of_round / time;
}

Stream measure_stream(std::int64_t bytes, int threads, double seconds,
                      const Probes& probes) {
  // whole lines of every thread's own part, and a turn of 4 MiB at least
  const std::int64_t part = std::max<std::int64_t>(bytes / 4 / threads / 128, 1) * 128;
  const int passes =
      static_cast<int>(std::max<std::int64_t>(1, (std::int64_t{4} << 20) / bytes));
  std::vector<float> memory(static_cast<std::size_t>(part * threads), 1.0f);
  std::vector<float> sums(static_cast<std::size_t>(threads));
  const auto mine = [&](int thread) { return memory.data() + thread * part; };
  const auto count = static_cast<std::size_t>(part);
  const double read = best_time(threads, seconds, [&](int thread) {
    float sum = 0;
    for (int pass = 0; pass < passes; ++pass) {
      sum += probes.read_stream(mine(thread), count);
    }
    sums[static_cast<std::size_t>(thread)] = sum;
  });
  const double update = best_time(threads, seconds, [&](int thread) {
    for (int pass = 0; pass < passes; ++pass) probes.update_stream(mine(thread), count);
  });
  const double moved = 4e-9 * static_cast<double>(part) * threads * passes;
  return {part * threads * 4, moved / read, 2 * moved / update};
}

}  // namespace

Machine this_machine() {
  Machine machine;
  machine.cpu = "unknown";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0 || line.find(": ") == std::string::npos)
      continue;
    machine.cpu = line.substr(line.find(": ") + 2);
    break;
  }
  machine.cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (const CpuTarget target : supported_cpu_targets())
    machine.targets.emplace_back(cpu_target_name(target));
  machine.target = cpu_target_name(cpu_target());
  for (const char* name : {"PION_CPU_TARGET", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA",
                           "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"}) {
    if (const char* value = std::getenv(name))
      machine.limits.push_back(std::string(name) + "=" + value);
  }
  machine.bf16 = has_bf16_dot() || has_bf16_tiles();
  return machine;
}

double Peaks::bf16_gflops(const std::string& target) const {
  if (target.starts_with("amx")) return bf16_tile_gflops;
  return target == "avx512_bf16" ? bf16_dot_gflops : f32_gflops;
}

double Peaks::update_gbs(std::int64_t bytes) const {
  for (const Stream& stream : streams)
    if (stream.bytes >= bytes) return stream.update_gbs;
  return streams.empty() ? 0 : streams.back().update_gbs;
}

Peaks measure_peaks(int threads, double seconds) {
  const Probes probes = probes_of(std::string(cpu_target_name(cpu_target())));
  constexpr std::int64_t kSizes[] = {64 << 10, 256 << 10, 1 << 20,  4 << 20,
                                     16 << 20, 64 << 20,  256 << 20};
  const double share = seconds / (3 + 2 * std::size(kSizes));
  Peaks peaks{.threads = threads};
  peaks.f32_gflops =
      gflops(threads, share, probes.multiply_add_flops(), [&](std::int64_t rounds) {
        probes.multiply_add_rounds(static_cast<std::size_t>(rounds));
      });
  if (has_bf16_dot())
    peaks.bf16_dot_gflops = gflops(threads, share, kBf16DotFlops, bf16_dot_rounds);
  if (has_bf16_tiles())
    peaks.bf16_tile_gflops = gflops(threads, share, kBf16TileFlops, bf16_tile_rounds);
  for (const std::int64_t size : kSizes)
    peaks.streams.push_back(measure_stream(size, threads, share, probes));
  return peaks;
}

}  // namespace pion::bench
