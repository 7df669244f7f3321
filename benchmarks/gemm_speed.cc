// SPDX-License-Identifier: Apache-2.0
// Question  What fraction of a core's f32 multiply-add peak do the products of
//           pion/kernels/gemm.h reach, on every CPU target of this machine?
// Run       build/release/benchmarks/gemm_speed [threads, 1] [target, all]
// Columns   real: operations that are computed, by halves for symmetric products, whole
//           vectors on the diagonal. full: those of the plain product, as if nothing
//           were saved. Times are minima over a quarter of a second; the peak is measured
//           before and after each of them and the higher one counts, times the threads.
// Results   docs/results/speed.md

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "pion/kernels/gemm.h"

namespace {

using pion::CpuTarget;

// One thread is timed in CPU time, which other programs disturb less.
bool cpu_time = true;

double now() {
  timespec time;
  clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Seconds of one call at best; short calls are timed by the dozen.
double fastest(const std::function<void()>& call, double budget) {
  call();
  double start = now();
  call();
  const int inner = std::max(1, static_cast<int>(20e-6 / (now() - start + 1e-9)));
  double best = std::numeric_limits<double>::infinity();
  for (const double begin = now(); now() - begin < budget;) {
    start = now();
    for (int i = 0; i < inner; ++i) call();
    best = std::min(best, (now() - start) / inner);
  }
  return best;
}

double measured_peak(CpuTarget target) {
  constexpr std::size_t kRepetitions = 2000;
  double operations = 0.0;
  const double seconds =
      fastest([&] { operations = pion::multiply_add_peak(kRepetitions, target); }, 0.02);
  return operations / seconds;
}

// 64-byte aligned, all one value: speed does not depend on finite values.
class Matrix {
 public:
  Matrix(std::int64_t rows, std::int64_t cols)
      : rows_(rows),
        cols_(cols),
        memory_(static_cast<std::size_t>(rows * cols) + 16, 1e-3f) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    data_ = memory_.data() + (64 - address % 64) % 64 / sizeof(float);
  }
  pion::MatrixView view() { return pion::view(data_, rows_, cols_); }

 private:
  std::int64_t rows_, cols_;
  std::vector<float> memory_;
  float* data_;
};

enum class Kind { kCommuting, kGram, kProduct, kWideUpdate, kTallUpdate };
constexpr const char* kKindNames[] = {"A B commuting", "X X^T", "Q X", "W += Q X",
                                      "W += X Q"};
struct Case {
  Kind kind;
  std::int64_t m, n;  // X is (m x n)
};
constexpr Case kCases[] = {
    {Kind::kCommuting, 16, 16},      {Kind::kCommuting, 32, 32},
    {Kind::kCommuting, 48, 48},      {Kind::kCommuting, 64, 64},
    {Kind::kCommuting, 128, 128},    {Kind::kCommuting, 256, 256},
    {Kind::kCommuting, 1024, 1024},  {Kind::kCommuting, 2048, 2048},
    {Kind::kGram, 64, 896},          {Kind::kGram, 128, 1024},
    {Kind::kGram, 128, 2048},        {Kind::kGram, 1024, 3072},
    {Kind::kProduct, 64, 896},       {Kind::kProduct, 128, 1024},
    {Kind::kProduct, 128, 2048},     {Kind::kProduct, 1024, 1024},
    {Kind::kProduct, 1024, 3072},    {Kind::kWideUpdate, 64, 896},
    {Kind::kWideUpdate, 128, 1024},  {Kind::kWideUpdate, 128, 2048},
    {Kind::kWideUpdate, 1024, 3072}, {Kind::kTallUpdate, 64, 896},
    {Kind::kTallUpdate, 128, 1024},  {Kind::kTallUpdate, 128, 2048}};

double full_operations(const Case& c) {
  const double inner = static_cast<double>(c.kind == Kind::kGram ? c.n : c.m);
  const double width = static_cast<double>(c.kind == Kind::kGram ? c.m : c.n);
  return 2.0 * static_cast<double>(c.m) * width * inner;
}

double real_operations(const Case& c, CpuTarget target) {
  if (c.kind != Kind::kCommuting && c.kind != Kind::kGram) return full_operations(c);
  const std::int64_t lanes = target >= CpuTarget::kAvx512 ? 16
                             : target == CpuTarget::kAvx2 ? 8
                                                          : 4;
  double entries = 0.0;
  for (std::int64_t j = 0; j < c.m; j += lanes) {
    entries += static_cast<double>(std::min(lanes, c.m - j) * std::min(c.m, j + lanes));
  }
  return full_operations(c) * entries / static_cast<double>(c.m * c.m);
}

void measure(const Case& c, CpuTarget target, pion::GemmMemory<float> memory) {
  const bool tall = c.kind == Kind::kTallUpdate;
  Matrix q(c.m, c.m), p(c.m, c.m), x(tall ? c.n : c.m, tall ? c.m : c.n), small(c.m, c.m),
      weight(tall ? c.n : c.m, tall ? c.m : c.n);
  const auto call = [&] {
    switch (c.kind) {
      case Kind::kCommuting:
        return pion::commuting_product<float>(1.5f, q.view(), p.view(), 0.5f, q.view(),
                                              small.view(), memory, target);
      case Kind::kGram:
        return pion::symmetric_product<float>(1, x.view(), 0, {}, small.view(), memory,
                                              target);
      case Kind::kProduct:
        return pion::product<float>(1, q.view(), x.view(), 0, {}, weight.view(), memory,
                                    target);
      default:
        pion::product_update<float>(1e-3f, q.view(), x.view(), 0.99f, weight.view(),
                                    memory, target);
    }
  };
  const double before = measured_peak(target);
  const double seconds = fastest(call, 0.25);
  const double threads = memory.executor == nullptr ? 1 : memory.executor->threads();
  const double peak = std::max(before, measured_peak(target)) * threads;
  const double real = real_operations(c, target) / seconds;
  std::printf("| %s | %s | %lld x %lld | %.2f | %.1f | %.0f %% | %.1f | %.1f |\n",
              pion::cpu_target_name(target).data(), kKindNames[static_cast<int>(c.kind)],
              static_cast<long long>(c.m), static_cast<long long>(c.n), seconds * 1e6,
              real * 1e-9, 100.0 * real / peak, full_operations(c) / seconds * 1e-9,
              peak * 1e-9);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1) {
    std::fprintf(stderr, "gemm_speed: threads must be > 0, got %s\n", argv[1]);
    return 2;
  }
  const std::string only = argc > 2 ? argv[2] : "";
  cpu_time = threads == 1;
  const auto pool = pion::make_thread_pool(threads);
  std::vector<float> scratch(static_cast<std::size_t>(threads) * pion::kGemmScratch);
  std::printf(
      "| target | product | X | us | real GFLOP/s | of peak | full GFLOP/s | peak |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const CpuTarget target : pion::supported_cpu_targets()) {
    if (target > CpuTarget::kAvx512) continue;  // f32 products are those of kAvx512
    if (!only.empty() && only != pion::cpu_target_name(target)) continue;
    for (const Case& c : kCases) measure(c, target, {scratch, *pool});
  }
  return 0;
}
