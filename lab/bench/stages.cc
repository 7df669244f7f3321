// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/stages.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>

#include "lab/bench/stopwatch.h"
#include "lab/bench/workload.h"
#include "pion/executor.h"
#include "pion/kernels/elementwise.h"
#include "pion/kernels/tiles.h"
#include "pion/optim/matrix_step.h"
#include "pion/spectral/block_map.h"
#include "pion/spectral/scratch.h"

namespace pion::bench {
namespace {

std::vector<float> normals(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& each : values) each = normal(random);
  return values;
}

// The least time of one call; short ones are timed by the dozen.
double least_us(double seconds, const std::function<void()>& call) {
  call();
  Clock::time_point start = Clock::now();
  call();
  const int inner =
      std::clamp(static_cast<int>(20 / (microseconds_since(start) + 0.01)), 1, 1000);
  double least = 1e30;
  const Clock::time_point begin = Clock::now();
  do {
    start = Clock::now();
    for (int i = 0; i < inner; ++i) call();
    least = std::min(least, microseconds_since(start) / inner);
  } while (microseconds_since(begin) < 1e6 * seconds);
  return least;
}

// Tiles of the operands of one block's products, of small numbers.
class Operands {
 public:
  Operands(std::int64_t rows, std::int64_t cols)
      : m_(blocks_of(std::min(rows, cols))), n_(blocks_of(std::max(rows, cols))) {
    constexpr Bf16Bits kSmall = 0x3a83;  // 1e-3
    for (Scratch<Bf16Bits>* wide : {&left_, &right_}) {
      const std::span<Bf16Bits> tiles = wide->at_least(2 * kTileSize * m_ * (n_ + m_));
      std::fill(tiles.begin(), tiles.end(), kSmall);
    }
    for (Scratch<Bf16Bits>* each : {&q_, &rest_}) {
      const std::span<Bf16Bits> tiles = each->at_least(2 * kTileSize * m_ * m_);
      std::fill(tiles.begin(), tiles.end(), kSmall);
    }
    out_.at_least(2 * kTileSize * m_ * m_);
    out_rest_.at_least(2 * kTileSize * m_ * m_);
    const std::span<float> blocks = blocks_.at_least(kBlockSize * m_ * m_);
    std::fill(blocks.begin(), blocks.end(), 0.0f);
    const std::span<float> weight = weight_.at_least(kBlockSize * m_ * n_);
    std::fill(weight.begin(), weight.end(), 1.0f);
    squares_.resize(m_ * n_);
  }

  void gram(const TileKernels& kernels) {
    const TileGram call{.product = {.left = left_.data(),
                                    .left_step = n_ * kTileSize,
                                    .right = right_.data(),
                                    .right_step = n_ * kTileSize,
                                    .k_tiles = n_,
                                    .row_blocks = m_,
                                    .col_blocks = m_,
                                    .symmetric = true},
                        .blocks = blocks_.data(),
                        .accumulate = false};
    kernels.gram(call, 0, item_count(call.product));
  }

  // T = a A + P A, the commonest of the m x m products.
  void symmetric(const TileKernels& kernels, bool split) {
    const TileSymmetric call{.product = {.terms = split ? Terms::kBothRests : Terms::kOne,
                                         .left = q_.data(),
                                         .left_rest = rest_.data(),
                                         .left_step = m_ * kTileSize,
                                         .right = left_.data(),
                                         .right_rest = right_.data(),
                                         .right_step = m_ * kTileSize,
                                         .k_tiles = m_,
                                         .row_blocks = m_,
                                         .col_blocks = m_,
                                         .symmetric = true},
                             .alpha = 1,
                             .beta = 0.5f,
                             .c = blocks_.data(),
                             .out = blocks_.data(),
                             .right = out_.data(),
                             .right_rest = split ? out_rest_.data() : nullptr};
    kernels.symmetric(call, 0, item_count(call.product));
  }

  void update(const TileKernels& kernels, bool with_rest) {
    const TileUpdate call{.product = {.terms = with_rest ? Terms::kLeftRest : Terms::kOne,
                                      .left = q_.data(),
                                      .left_rest = rest_.data(),
                                      .left_step = m_ * kTileSize,
                                      .right = right_.data(),
                                      .right_step = m_ * kTileSize,
                                      .k_tiles = m_,
                                      .row_blocks = m_,
                                      .col_blocks = n_,
                                      .symmetric = false},
                          .decay = 0.999f,
                          .alpha = -1e-6f,
                          .weight = weight_.data(),
                          .weight_stride = n_ * kBlockEdge,
                          .rows = m_ * kBlockEdge,
                          .cols = n_ * kBlockEdge,
                          .squares = squares_.data()};
    kernels.update(call, 0, item_count(call.product));
  }

 private:
  static std::size_t blocks_of(std::int64_t n) {
    return (static_cast<std::size_t>(n) + kBlockEdge - 1) / kBlockEdge;
  }

  std::size_t m_, n_;
  Scratch<Bf16Bits> left_, right_, q_, rest_, out_, out_rest_;
  Scratch<float> blocks_, weight_;
  std::vector<double> squares_;
};

}  // namespace

TileWork map_work(const SpectralMap& map, std::int64_t rows, std::int64_t cols,
                  bool bf16) {
  return tile_work(bf16 && map.precision != Precision::kF32 ? TilePolicy(map, rows, cols)
                                                            : f32_policy(map, rows, cols),
                   rows, cols);
}

std::vector<Stage> measure_stages(std::int64_t rows, std::int64_t cols,
                                  const std::string& rule_label, Precision precision,
                                  double seconds) {
  if (precision == Precision::kF32)
    throw std::invalid_argument("measure_stages: precision must be fast or accurate");
  const Rule rule = make_labelled_rule(rule_label);
  const MatrixRule settings = *matrix_rule(rule);
  SpectralMap map = rule_map(rule, rows, cols);
  map.precision = precision;
  const std::int64_t n = rows * cols;
  std::vector<float> weight = normals(n, 1), momentum = normals(n, 2);
  const std::vector<float> gradient = normals(n, 3);
  const std::unique_ptr<BlockMap> block = make_block_map(cpu_target());
  SerialExecutor here;
  const BlockSource source{.gradient = view(gradient.data(), rows, cols),
                           .momentum = view(momentum.data(), rows, cols),
                           .mu = static_cast<float>(settings.momentum),
                           .share = static_cast<float>(1 - settings.momentum),
                           .nesterov = settings.nesterov};
  const TileWork work = map_work(map, rows, cols, has_bf16(cpu_target()));
  const auto entries = static_cast<double>(n);
  std::vector<Stage> stages = {{"scan", 1e30, 0, 4 * entries},
                               {"load and Gram", 1e30, work.load, 12 * entries},
                               {"map", 1e30, work.apply, 0},
                               {"update", 1e30, work.update, 8 * entries}};
  const Clock::time_point begin = Clock::now();
  for (int turn = 0; turn < 3 || microseconds_since(begin) < 1e6 * seconds; ++turn) {
    std::array<Clock::time_point, 5> at;
    at[0] = Clock::now();
    gradient_squares({.f32 = gradient.data()}, gradient.size());
    at[1] = Clock::now();
    block->load(source, map, 1.0, false, here);
    at[2] = Clock::now();
    block->apply(map, here);
    at[3] = Clock::now();
    block->update(view(weight.data(), rows, cols), 0.999, -1e-6, here);
    at[4] = Clock::now();
    for (std::size_t s = 0; s < stages.size(); ++s) {
      const std::chrono::duration<double, std::micro> taken = at[s + 1] - at[s];
      stages[s].us = std::min(stages[s].us, taken.count());
    }
  }
  return stages;
}

std::vector<Stage> measure_products(std::int64_t rows, std::int64_t cols,
                                    double seconds) {
  if (!has_bf16(cpu_target())) return {};
  const TileKernels& kernels = tile_kernels(cpu_target());
  const auto m = static_cast<double>(std::min(rows, cols)),
             n = static_cast<double>(std::max(rows, cols));
  Operands operands(rows, cols);
  constexpr std::size_t kTurns = 64;
  float last = 0;
  const double in_l1 = kernels.multiply_peak(kTurns, &last);
  const double share = seconds / 6;
  const auto timed = [share](const char* name, double flops, double bytes,
                             const std::function<void()>& call) {
    return Stage{name, least_us(share, call), flops, bytes};
  };
  return {
      timed("in L1", in_l1, 0, [&] { kernels.multiply_peak(kTurns, &last); }),
      timed("X X^T", m * m * n, 0, [&] { operands.gram(kernels); }),
      timed("m x m, single", m * m * m, 0, [&] { operands.symmetric(kernels, false); }),
      timed("m x m, split", 3 * m * m * m, 0, [&] { operands.symmetric(kernels, true); }),
      timed("Q X and update", 2 * m * m * n, 8 * m * n,
            [&] { operands.update(kernels, false); }),
      timed("Q X with rest and update", 4 * m * m * n, 8 * m * n,
            [&] { operands.update(kernels, true); })};
}

}  // namespace pion::bench
