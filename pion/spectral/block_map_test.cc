// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/block_map.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "pion/kernels/tested_tiles_test.h"
#include "pion/spectral/f32_map.h"
#include "pion/spectral/tile_map.h"
#include "tests/spectral_map_bound.h"

namespace pion {
namespace {

using Matrix = RandomMatrix<float>;

SpectralMap pion_map(int promotions, Precision precision) {
  SpectralMap map;
  map.sequence = high_pass_sequence(promotions, 5);
  map.precision = precision;
  return map;
}

SpectralMap muon_map(Precision precision) {
  SpectralMap map;
  map.sequence = muon_sequence("classic", 5);
  map.norm_margin = muon_norm_margin("classic");
  map.precision = precision;
  return map;
}

Matrix through(BlockMap& block, const SpectralMap& map, const Matrix& input,
               SpectrumStatistics* statistics = nullptr, double magnitude = 1.0) {
  SerialExecutor here;
  Matrix output = zero_matrix<float>(input.rows, input.cols);
  BlockSource source;
  source.gradient = input.view();
  EXPECT_TRUE(block.load(source, map, magnitude, statistics != nullptr, here));
  block.apply(map, here);
  block.store(output.view(), here);
  if (statistics != nullptr) *statistics = block.statistics();
  return output;
}

RandomMatrix<double> exact(const SpectralMap& map, const Matrix& input,
                           SpectrumStatistics* statistics = nullptr) {
  SpectralWorkspace workspace;
  return applied(map, converted<double>(input), workspace, statistics);
}

template <class A, class B>
double distance(const A& a, const B& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.data.size(); ++i) {
    const double difference = double(a.data[i]) - double(b.data[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

// What plain bf16 code computes: every matrix rounded, sums in f32.
Matrix direct_bf16(const SpectralMap& map, const Matrix& input) {
  const bool tall = input.rows > input.cols;
  Matrix x = tall ? transposed(input) : input;
  const auto round = [](Matrix& m) {
    for (float& v : m.data) v = bfloat16(v);
  };
  const auto product = [&](const Matrix& a, const Matrix& b) {
    Matrix c = zero_matrix<float>(a.rows, b.cols);
    for (std::int64_t i = 0; i < a.rows; ++i) {
      for (std::int64_t p = 0; p < a.cols; ++p)
        add_multiple(a(i, p), &b(p, 0), b.cols, &c(i, 0));
    }
    return c;
  };
  round(x);
  double squares = 0;
  for (const float v : x.data) squares += double(v) * double(v);
  for (float& v : x.data) {
    v = static_cast<float>(double(v) / (map.norm_margin * std::sqrt(squares)));
  }
  round(x);
  for (const Quintic& q : map.sequence) {
    Matrix a = product(x, transposed(x));
    round(a);
    Matrix b = product(a, a);
    for (std::size_t i = 0; i < b.data.size(); ++i) {
      b.data[i] =
          static_cast<float>(q.b) * a.data[i] + static_cast<float>(q.c) * b.data[i];
    }
    round(b);
    Matrix next = product(b, x);
    for (std::size_t i = 0; i < next.data.size(); ++i) {
      next.data[i] += static_cast<float>(q.a) * x.data[i];
    }
    round(next);
    x = next;
  }
  return tall ? transposed(x) : x;
}

// Power law, logarithmic to 1e-4, rank 8 and noise, rank 8 alone; that of a Gaussian
// matrix has no values here.
std::vector<std::pair<std::string, std::vector<double>>> spectra(std::int64_t m) {
  std::vector<double> power, logarithmic, noisy, deficient;
  for (std::int64_t i = 0; i < m; ++i) {
    power.push_back(1.0 / static_cast<double>(i + 1));
    logarithmic.push_back(
        std::pow(10.0, -4.0 * static_cast<double>(i) / static_cast<double>(m - 1)));
    noisy.push_back(i < 8 ? 1.0 : 1e-3);
    deficient.push_back(i < 8 ? 1.0 : 0.0);
  }
  return {{"1/i", power},
          {"to 1e-4", logarithmic},
          {"rank 8 and noise", noisy},
          {"rank 8", deficient},
          {"Gaussian", {}}};
}

// A map of one matrix, exactly, and how far off plain bf16 is.
struct Judged {
  std::string what;
  SpectralMap map;
  Matrix x;
  RandomMatrix<double> expected;
  double plain;
};

std::vector<Judged> judged(const std::vector<std::pair<int, int>>& shapes,
                           const std::vector<SpectralMap>& maps) {
  std::vector<Judged> all;
  for (const auto& [rows, cols] : shapes) {
    for (const auto& [name, values] : spectra(std::min(rows, cols))) {
      const Matrix x =
          values.empty()
              ? gaussian_matrix<float>(rows, cols, 3)
              : converted<float>(with_spectrum(rows, cols, values, 3).matrix());
      for (std::size_t k = 0; k < maps.size(); ++k) {
        Judged one{name + ", " + std::to_string(rows) + " x " + std::to_string(cols) +
                       ", map " + std::to_string(k),
                   maps[k], x, exact(maps[k], x), 0};
        one.plain = distance(direct_bf16(maps[k], x), one.expected);
        all.push_back(std::move(one));
      }
    }
  }
  return all;
}

// One kind of BlockMap: f32 on a target, or tiles by a table of kernels.
struct TestedMap {
  std::string name;
  CpuTarget target = CpuTarget::kPortable;
  const TileKernels* kernels = nullptr;

  std::unique_ptr<BlockMap> make() const {
    if (kernels != nullptr) return std::make_unique<TileMap>(*kernels);
    return std::make_unique<F32Map>(target);
  }
  friend std::ostream& operator<<(std::ostream& out, const TestedMap& tested) {
    return out << tested.name;
  }
};

std::vector<TestedMap> tested_maps() {
  std::vector<TestedMap> all;
  for (const CpuTarget target : supported_cpu_targets()) {
    if (!has_bf16(target)) all.push_back({std::string(cpu_target_name(target)), target});
  }
  for (const TestedTiles& tiles : tested_tiles()) {
    all.push_back({.name = tiles.name, .kernels = tiles.kernels});
  }
  return all;
}

class BlockMaps : public testing::TestWithParam<TestedMap> {
 protected:
  void expect_no_further_off(const std::vector<Judged>& cases) {
    for (const Judged& one : cases) {
      const double off = distance(through(*block, one.map, one.x), one.expected);
      EXPECT_LE(off, one.plain) << one.what;
      RecordProperty(one.what, std::to_string(off / one.plain));
    }
  }

  std::unique_ptr<BlockMap> block = GetParam().make();
};

// The cases are the same for every target: judged once.
TEST_P(BlockMaps, AccurateIsNeverFurtherOffThanPlainBf16) {
  static const std::vector<Judged> cases = [] {
    std::vector<SpectralMap> maps = {muon_map(Precision::kAccurate)};
    for (int k = 1; k <= 5; ++k) maps.push_back(pion_map(k, Precision::kAccurate));
    return judged({{48, 160}, {160, 48}, {64, 64}, {96, 80}}, maps);
  }();
  expect_no_further_off(cases);
}

// Every policy of Precision::kFast: single products, split last steps, all split, a new X
// before the last two steps (230 rows), and nearly square with X in bf16 or f32.
TEST_P(BlockMaps, FastIsNeverFurtherOffThanPlainBf16) {
  static const std::vector<Judged> cases = [] {
    std::vector<SpectralMap> maps = {muon_map(Precision::kFast)};
    for (int k = 2; k <= 5; ++k) maps.push_back(pion_map(k, Precision::kFast));
    auto all = judged({{48, 160}, {160, 48}, {64, 64}, {128, 140}, {128, 200}}, maps);
    for (Judged& one : judged({{230, 350}, {350, 230}}, {maps[0]})) {
      all.push_back(std::move(one));
    }
    return all;
  }();
  expect_no_further_off(cases);
}

// f stays below 1.13 on [0, 1]. One direction is the worst input: the others are rounding
// errors of X, 2^-9 at most, so below 1 after f' = 1049 too, unless the arithmetic's
// grow.
TEST(BlockMap, SequencesThatMagnifyMuchDoNotDiverge) {
  for (const auto& [name, precision, target] : [] {
         std::vector<std::tuple<const char*, Precision, CpuTarget>> all;
         for (const CpuTarget each : supported_cpu_targets()) {
           for (const char* sequence : {"polar_express", "cans"}) {
             all.emplace_back(sequence, Precision::kAccurate, each);
             all.emplace_back(sequence, Precision::kFast, each);
           }
         }
         return all;
       }()) {
    SpectralMap map = muon_map(precision);
    map.sequence = muon_sequence(name, 5);
    map.norm_margin = muon_norm_margin(name);
    for (const auto& [m, n] : {std::pair{64, 128}, {64, 64}, {16, 12}, {1, 1}}) {
      for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        std::vector<double> values(std::min(m, n), 0.0);
        values[0] = 1;
        const Matrix strong =
            converted<float>(with_spectrum(m, n, values, seed).matrix());
        for (const Matrix& input : {strong, gaussian_matrix<float>(m, n, seed)}) {
          SpectralWorkspace workspace(target);
          const Matrix output = applied(map, input, workspace);
          EXPECT_LT(singular_values<float>(output.view()).front(), 1.5)
              << name << " " << m << "x" << n << " seed " << seed;
        }
      }
    }
  }
}

TEST_P(BlockMaps, StayWithinTheBoundAtEveryTileEdge) {
  for (const Precision precision : {Precision::kFast, Precision::kAccurate}) {
    for (const auto& [rows, cols] : std::vector<std::pair<int, int>>{{1, 1},
                                                                     {1, 9},
                                                                     {40, 1},
                                                                     {2, 3},
                                                                     {7, 5},
                                                                     {15, 16},
                                                                     {16, 17},
                                                                     {31, 32},
                                                                     {32, 33},
                                                                     {33, 31},
                                                                     {33, 65},
                                                                     {64, 97},
                                                                     {97, 64},
                                                                     {5, 700},
                                                                     {700, 5},
                                                                     {63, 95},
                                                                     {96, 63},
                                                                     {130, 140}}) {
      const Matrix x = gaussian_matrix<float>(rows, cols, 11);
      for (const SpectralMap& map :
           {pion_map(2, precision), pion_map(4, precision), muon_map(precision)}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols));
        const auto expected = exact(map, x);
        const std::vector<double> values = singular_values<float>(x.view());
        EXPECT_LE(distance(through(*block, map, x), expected),
                  rounding_bound(map, values, kUnitRoundoff16));
      }
    }
  }
}

TEST_P(BlockMaps, DoNotDependOnTheScaleOfTheInput) {
  const Matrix x = gaussian_matrix<float>(40, 100, 5);
  for (const Precision precision : {Precision::kFast, Precision::kAccurate}) {
    const SpectralMap map = pion_map(3, precision);
    const Matrix expected = through(*block, map, x);
    // powers of two near 1e30 and 1e-30; the guess of the magnitude stays 1
    for (const float factor : {0x1p100f, 0x1p-100f, 0x1p60f, 0x1p-25f}) {
      Matrix scaled = x;
      for (float& v : scaled.data) v *= factor;
      EXPECT_EQ(through(*block, map, scaled).data, expected.data) << factor;
      EXPECT_EQ(through(*block, map, scaled, nullptr, factor).data, expected.data);
    }
  }
}

TEST_P(BlockMaps, ZeroGivesZeroAndNonFiniteIsRefused) {
  SerialExecutor here;
  Matrix x = zero_matrix<float>(33, 50);
  const SpectralMap map = muon_map(Precision::kAccurate);
  EXPECT_EQ(through(*block, map, x).data, x.data);
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    x(32, 49) = bad;
    BlockSource source;
    source.gradient = x.view();
    EXPECT_FALSE(block->load(source, map, 1.0, false, here));
  }
  // and it is none the worse for it
  const Matrix y = gaussian_matrix<float>(20, 64, 2);
  EXPECT_EQ(through(*block, map, y).data, through(*GetParam().make(), map, y).data);
}

TEST_P(BlockMaps, StatisticsAreThoseOfTheDefinition) {
  const SpectralMap pion = pion_map(3, Precision::kAccurate),
                    restarted = muon_map(Precision::kFast);
  for (const auto& [rows, cols, map] :
       std::vector<std::tuple<int, int, SpectralMap>>{{40, 96, pion},
                                                      {64, 64, pion},
                                                      {230, 350, restarted},
                                                      {350, 230, restarted}}) {
    const Matrix x = converted<float>(
        with_spectrum(rows, cols, spectra(std::min(rows, cols))[0].second, 6).matrix());
    SpectrumStatistics got, expected;
    through(*block, map, x, &got);
    exact(map, x, &expected);
    // rounding X to bf16 moves every entry by at most 2^-9
    EXPECT_NEAR(got.frobenius_norm, expected.frobenius_norm,
                0x1p-9 * expected.frobenius_norm);
    EXPECT_NEAR(got.sigma_max, expected.sigma_max, 0x1p-8 * expected.sigma_max);
    EXPECT_NEAR(got.stable_rank, expected.stable_rank, 0x1p-6 * expected.stable_rank);
    EXPECT_NEAR(got.directions_passed, expected.directions_passed,
                0x1p-6 * expected.directions_passed);
    // Muon's O itself is off by 2.5e-2 under fast (docs/kernels.md), a square by twice
    // that
    const double off = map.precision == Precision::kFast ? 5e-2 : 0x1p-6;
    EXPECT_NEAR(got.energy_kept, expected.energy_kept, off * expected.energy_kept);
  }
}

// Takes tasks in threads of their own, in a scrambled order.
class ManyThreads : public Executor {
 public:
  explicit ManyThreads(int count) : count_(count) {}
  int threads() const override { return count_; }
  void run(int tasks, FunctionRef<void(int, int)> work) override {
    std::vector<std::thread> threads;
    for (int t = 0; t < count_; ++t) {
      threads.emplace_back([=, this] {
        for (int task = tasks - 1 - t; task >= 0; task -= count_) work(task, t);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  int count_;
};

TEST_P(BlockMaps, EveryNumberOfThreadsGivesTheSameBits) {
  const SpectralMap pion = pion_map(3, Precision::kFast),
                    muon = muon_map(Precision::kFast);
  for (const auto& [rows, cols, map] :
       std::vector<std::tuple<int, int, SpectralMap>>{{96, 400, pion},
                                                      {400, 96, pion},
                                                      {130, 140, pion},
                                                      {300, 299, pion},
                                                      {230, 350, muon},
                                                      {350, 230, muon}}) {
    const Matrix gradient = gaussian_matrix<float>(rows, cols, 21);
    std::vector<Matrix> weights, momenta;
    for (const int threads : {1, 2, 3, 5}) {
      ManyThreads many(threads);
      Matrix momentum = gaussian_matrix<float>(rows, cols, 22);
      Matrix weight = gaussian_matrix<float>(rows, cols, 23);
      const BlockSource source{.gradient = gradient.view(),
                               .momentum = momentum.view(),
                               .mu = 0.9f,
                               .share = 0.1f,
                               .nesterov = true};
      ASSERT_TRUE(block->load(source, map, 1.0, true, many));
      block->apply(map, many);
      block->update(weight.view(), 0.99, -0.1, many);
      weights.push_back(weight);
      momenta.push_back(momentum);
    }
    for (std::size_t i = 1; i < weights.size(); ++i) {
      EXPECT_EQ(weights[i].data, weights[0].data);
      EXPECT_EQ(momenta[i].data, momenta[0].data);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, BlockMaps, testing::ValuesIn(tested_maps()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace pion
