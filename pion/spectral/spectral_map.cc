// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/spectral_map.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "pion/kernels/gemm.h"
#include "pion/kernels/sum_of_squares.h"
#include "pion/spectral/block_map.h"
#include "pion/spectral/exact_svd.h"
#include "pion/spectral/flush_denormals.h"
#include "pion/spectral/largest_eigenvalue.h"
#include "pion/spectral/matrix_copy.h"
#include "pion/spectral/normalization.h"
#include "pion/spectral/scratch.h"
#include "pion/spectral/tile_policy.h"

namespace pion {

namespace {

// Largest normalized singular value: rounding of the norm and of the entries, up to 1e-6
// in f32; what the Lanczos estimate may miss.
constexpr double kFrobeniusReach = 1.0 + 1e-5;
constexpr double kSpectralReach = 1.01;

struct IterationBuffers {
  Scratch<double> x, next;           // (m x n), m <= n
  Scratch<double> gram, polynomial;  // (m x m)
  Scratch<double> packed;            // kGemmScratch
};

}  // namespace

struct SpectralWorkspace::Buffers {
  explicit Buffers(CpuTarget chosen) : target(chosen) {}

  CpuTarget target;
  IterationBuffers f64;
  Scratch<double> largest_entries;  // one per matrix of the batch
  LanczosScratch lanczos;
  std::unique_ptr<BlockMap> narrow_block_map, block_map;
  Scratch<float> wide_output;  // of a bf16 matrix
};

SpectralWorkspace::SpectralWorkspace() : SpectralWorkspace(cpu_target()) {}
SpectralWorkspace::SpectralWorkspace(CpuTarget target)
    : buffers_(std::make_unique<Buffers>(target)) {}
SpectralWorkspace::~SpectralWorkspace() = default;
SpectralWorkspace::SpectralWorkspace(SpectralWorkspace&&) noexcept = default;
SpectralWorkspace& SpectralWorkspace::operator=(SpectralWorkspace&&) noexcept = default;

BlockMap& SpectralWorkspace::block_map(const SpectralMap& map) {
  const bool narrow = map.precision != Precision::kF32 && fits_tiles(map.sequence);
  auto& own = narrow ? buffers_->narrow_block_map : buffers_->block_map;
  if (!own) own = make_block_map(buffers_->target, narrow);
  return *own;
}

namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::invalid_argument("apply_spectral_map: " + what);
}

void check_map(const SpectralMap& map) {
  switch (map.kind) {
    case SpectralMap::Kind::kPolynomial: {
      if (map.sequence.empty()) fail("sequence must have at least one step, got none");
      if (!(map.norm_margin >= 1.0) || !std::isfinite(map.norm_margin)) {
        fail("norm_margin must be finite and >= 1, got " +
             std::to_string(map.norm_margin));
      }
      const bool spectral = map.normalization == Normalization::kSpectral;
      const double reach = spectral ? kSpectralReach : kFrobeniusReach;
      check_sequence(map.sequence, "the map", reach / map.norm_margin);
      return;
    }
    case SpectralMap::Kind::kLowRank:
      if (map.rank < 1) fail("rank must be > 0, got " + std::to_string(map.rank));
      return;
    case SpectralMap::Kind::kLowPass:
      if (!(map.cutoff > 0.0) || !std::isfinite(map.cutoff)) {
        fail("cutoff must be finite and > 0, got " + std::to_string(map.cutoff));
      }
      return;
  }
  fail("kind must be a SpectralMap::Kind, got " +
       std::to_string(static_cast<int>(map.kind)));
}

template <class T>
std::string shape(const MatrixViewOf<T>& x) {
  return "[" + std::to_string(x.rows) + ", " + std::to_string(x.cols) + "] with stride " +
         std::to_string(x.stride);
}

template <class T>
void check_view(const char* name, std::size_t i, const MatrixViewOf<T>& x) {
  const bool valid = x.rows >= 0 && x.cols >= 0 && (x.rows <= 1 || x.stride >= x.cols) &&
                     (x.data != nullptr || x.rows == 0 || x.cols == 0);
  if (!valid) {
    fail(std::string(name) + "[" + std::to_string(i) +
         "] must have rows, cols >= 0, stride >= cols and data, got " + shape(x));
  }
}

template <class T>
void check_batch(std::span<const MatrixViewOf<const T>> input,
                 std::span<const MatrixViewOf<T>> output,
                 std::span<SpectrumStatistics> statistics) {
  if (output.size() != input.size()) {
    fail("output must have as many matrices as input, " + std::to_string(input.size()) +
         ", got " + std::to_string(output.size()));
  }
  if (!statistics.empty() && statistics.size() != input.size()) {
    fail("statistics must be empty or one per matrix, " + std::to_string(input.size()) +
         ", got " + std::to_string(statistics.size()));
  }
  for (std::size_t i = 0; i < input.size(); ++i) {
    check_view("input", i, input[i]);
    check_view("output", i, output[i]);
    if (input[i].rows != output[i].rows || input[i].cols != output[i].cols) {
      fail("output[" + std::to_string(i) + "] must have the shape of input, " +
           shape(input[i]) + ", got " + shape(output[i]));
    }
  }
}

void multiply_all(std::span<double> x, double factor) {
  for (double& value : x) value *= factor;
}

struct Iteration {
  MatrixViewOf<double> x, next;           // (m x n), m <= n
  MatrixViewOf<double> gram, polynomial;  // (m x m)
  std::span<double> packed;
  CpuTarget target;
};

// X <- p_k(...p_1(X)), where the Gram matrix of X is already in `gram`; result in `x`.
// Direct iteration with symmetric half products.
void iterate(const QuinticSequence& sequence, Iteration& it) {
  bool first = true;
  for (const auto& [a, b, c] : sequence) {
    if (!first) symmetric_product<double>(1, it.x, 0, {}, it.gram, it.packed, it.target);
    first = false;
    // P = b A + c A^2; A is symmetric, so A^2 = A A^T
    symmetric_product<double>(c, it.gram, b, it.gram, it.polynomial, it.packed,
                              it.target);
    product<double>(1, it.polynomial, it.x, a, it.x, it.next, it.packed, it.target);
    std::swap(it.x, it.next);
  }
}

Iteration prepare(SpectralWorkspace::Buffers& buffers, std::int64_t m, std::int64_t n) {
  IterationBuffers& own = buffers.f64;
  const auto large = static_cast<std::size_t>(m * n),
             small = static_cast<std::size_t>(m * m);
  return {.x = view(own.x.at_least(large).data(), m, n),
          .next = view(own.next.at_least(large).data(), m, n),
          .gram = view(own.gram.at_least(small).data(), m, m),
          .polynomial = view(own.polynomial.at_least(small).data(), m, m),
          .packed = own.packed.at_least(kGemmScratch),
          .target = buffers.target};
}

std::span<double> entries(const MatrixViewOf<double>& x) {
  return {x.data, static_cast<std::size_t>(x.rows * x.cols)};
}

// <scale X, O> over all entries.
double inner_product(MatrixViewOf<const double> x, double scale, bool transposed,
                     MatrixViewOf<double> o) {
  double total = 0.0;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    double row = 0.0;
    for (std::int64_t j = 0; j < x.cols; ++j) {
      row += scale * x(i, j) * (transposed ? o(j, i) : o(i, j));
    }
    total += row;
  }
  return total;
}

// One non-zero f64 matrix. `largest` is its largest absolute entry.
void apply_polynomial(const SpectralMap& map, MatrixViewOf<const double> input,
                      MatrixViewOf<double> output, double largest,
                      SpectralWorkspace::Buffers& buffers,
                      SpectrumStatistics* statistics) {
  const bool transposed = input.rows > input.cols;
  const std::int64_t m = std::min(input.rows, input.cols);
  const std::int64_t n = std::max(input.rows, input.cols);
  Iteration it = prepare(buffers, m, n);

  // to entries of order 1 first, so that no square under- or overflows
  const double scale = power_of_two_scale(largest);
  copy(input, scale, transposed, it.x);
  const double norm =
      std::sqrt(sum_of_squares(std::span<const double>(entries(it.x)), it.target));

  const FlushDenormals flush;
  multiply_all(entries(it.x), 1.0 / norm);
  symmetric_product<double>(1, it.x, 0, {}, it.gram, it.packed, it.target);

  // sigma_1 relative to the norm
  const bool spectral = map.normalization == Normalization::kSpectral;
  double sigma = 0.0;
  if (spectral || statistics != nullptr) {
    const int steps = spectral ? kNormSteps<double> : kStatisticsSteps;
    sigma = std::sqrt(largest_eigenvalue<double>(it.gram, steps, buffers.lanczos));
  }
  const double factor = 1.0 / (map.norm_margin * (spectral ? sigma : 1.0));
  if (factor != 1.0) {
    multiply_all(entries(it.x), factor);
    multiply_all(entries(it.gram), factor * factor);
  }
  iterate(map.sequence, it);

  if (statistics != nullptr) {
    const double passed =
        sum_of_squares(std::span<const double>(entries(it.x)), it.target);
    const double kept = inner_product(input, scale, transposed, it.x) / norm;
    *statistics = {
        .frobenius_norm = norm / scale,
        .sigma_max = sigma * norm / scale,
        .stable_rank = 1.0 / (sigma * sigma),
        .directions_passed = passed,
        .energy_kept = passed > 0.0 ? std::min(1.0, kept * kept / passed) : 0.0};
  }
  copy<double, double>(it.x, 1.0, transposed, output);
}

// One that is not f64.
template <class T>
void apply_block_map(const SpectralMap& map, MatrixViewOf<const T> input,
                     MatrixViewOf<T> output, double largest, SpectralWorkspace& workspace,
                     SpectrumStatistics* statistics) {
  SerialExecutor here;
  BlockMap& block = workspace.block_map(map);
  BlockSource source;
  if constexpr (std::is_same_v<T, float>) {
    source.gradient = input;
  } else {
    source.narrow_gradient = input;
  }
  block.load(source, map, largest, statistics != nullptr, here);
  block.apply(map, here);
  if constexpr (std::is_same_v<T, float>) {
    block.store(output, here);
  } else {
    const auto size = static_cast<std::size_t>(input.rows * input.cols);
    const MatrixView wide = view(workspace.buffers().wide_output.at_least(size).data(),
                                 input.rows, input.cols);
    block.store(wide, here);
    copy<float, T>(wide, 1.0, false, output);
  }
  if (statistics != nullptr) *statistics = block.statistics();
}

// The same by an exact decomposition, in double.
template <class T>
void apply_exact(const SpectralMap& map, MatrixViewOf<const T> input,
                 MatrixViewOf<T> output, double largest,
                 SpectralWorkspace::Buffers& buffers, SpectrumStatistics* statistics) {
  const double scale = power_of_two_scale(largest);
  const auto size = static_cast<std::size_t>(input.rows * input.cols);
  const auto x = view(buffers.f64.x.at_least(size).data(), input.rows, input.cols);
  const auto next = view(buffers.f64.next.at_least(size).data(), input.rows, input.cols);
  copy(input, scale, false, x);
  SpectrumStatistics result = apply_exact_map(map, x, next);
  result.frobenius_norm /= scale;
  result.sigma_max /= scale;
  if (statistics != nullptr) *statistics = result;
  copy<double, T>(next, 1.0, false, output);
}

}  // namespace

template <class T>
bool apply_spectral_map(const SpectralMap& map,
                        std::span<const MatrixViewOf<const T>> input,
                        std::span<const MatrixViewOf<T>> output,
                        SpectralWorkspace& workspace,
                        std::span<SpectrumStatistics> statistics) {
  check_map(map);
  check_batch(input, output, statistics);
  SpectralWorkspace::Buffers& buffers = workspace.buffers();
  const std::span<double> largest = buffers.largest_entries.at_least(input.size());
  for (std::size_t i = 0; i < input.size(); ++i) {
    largest[i] = largest_entry(input[i]);
    if (!std::isfinite(largest[i])) return false;
  }
  for (std::size_t i = 0; i < input.size(); ++i) {
    SpectrumStatistics* statistic = statistics.empty() ? nullptr : &statistics[i];
    if (largest[i] == 0.0) {  // zero or empty
      copy(input[i], 1.0, false, output[i]);
      if (statistic != nullptr) *statistic = {};
    } else if (map.kind == SpectralMap::Kind::kPolynomial) {
      if constexpr (std::is_same_v<T, double>) {
        apply_polynomial(map, input[i], output[i], largest[i], buffers, statistic);
      } else {
        apply_block_map<T>(map, input[i], output[i], largest[i], workspace, statistic);
      }
    } else {
      apply_exact<T>(map, input[i], output[i], largest[i], buffers, statistic);
    }
  }
  return true;
}

template bool apply_spectral_map<float>(const SpectralMap&,
                                        std::span<const ConstMatrixView>,
                                        std::span<const MatrixView>, SpectralWorkspace&,
                                        std::span<SpectrumStatistics>);
template bool apply_spectral_map<double>(const SpectralMap&,
                                         std::span<const MatrixViewOf<const double>>,
                                         std::span<const MatrixViewOf<double>>,
                                         SpectralWorkspace&,
                                         std::span<SpectrumStatistics>);
template bool apply_spectral_map<bfloat16>(const SpectralMap&,
                                           std::span<const MatrixViewOf<const bfloat16>>,
                                           std::span<const MatrixViewOf<bfloat16>>,
                                           SpectralWorkspace&,
                                           std::span<SpectrumStatistics>);

}  // namespace pion
