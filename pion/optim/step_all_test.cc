// SPDX-License-Identifier: Apache-2.0
// step_all against the single-rule functions, bit for bit, on several numbers of threads.
#include "pion/optim/step_all.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "tests/random_numbers.h"
#include "tests/thrown_message.h"

namespace pion {
namespace {

using E = ElementType;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Numbers of one of the three types.
struct Numbers {
  E type = E::kF32;
  std::vector<double> f64;
  std::vector<float> f32;
  std::vector<bfloat16> bf16;
  Numbers() = default;
  Numbers(E t, const std::vector<double>& x) : type(t) {
    if (t == E::kF64) f64 = x;
    if (t == E::kF32) f32.assign(x.begin(), x.end());
    if (t != E::kBf16) return;
    for (const double value : x) bf16.emplace_back(static_cast<float>(value));
  }
  void* data() {
    return type == E::kF64   ? static_cast<void*>(f64.data())
           : type == E::kF32 ? static_cast<void*>(f32.data())
                             : static_cast<void*>(bf16.data());
  }
  std::size_t bytes() const { return f64.size() * 8 + f32.size() * 4 + bf16.size() * 2; }
  void set(std::size_t i, float value) {
    if (type == E::kF64) f64[i] = value;
    if (type == E::kF32) f32[i] = value;
    if (type == E::kBf16) bf16[i] = bfloat16(value);
  }
};

bool same_bits(Numbers& a, Numbers& b) {
  return a.bytes() == b.bytes() &&
         (a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0);
}

struct Parameter {
  Rule rule;
  E weight_type = E::kF32, gradient_type = E::kF32;
  std::int64_t count = 1, rows = 1, cols = 1;
  LowPrecision low_precision = LowPrecision::kMasterCopy;
  bool maximize = false;
  HeadLayout layout = {};
  Numbers weight = {}, gradient = {}, first = {}, second = {}, master = {};
  UpdateStatistics result = {};

  void fill(std::uint64_t seed) {
    const auto n = static_cast<std::size_t>(count * rows * cols);
    const E state = weight_type == E::kF64 ? E::kF64 : E::kF32;
    weight = Numbers(weight_type, gaussian<double>(n, seed));
    first = second = Numbers(state, std::vector<double>(n));
    if (weight_type == E::kBf16) {
      master = Numbers(E::kF32, std::vector<double>(n));
      for (std::size_t i = 0; i < n; ++i) {
        // within half a unit of the weight, but for some that others have written since
        master.f32[i] = weight.bf16[i] * (i % 9 == 4 ? 2.0f : 1.0f + 0x1p-10f);
      }
    }
  }
  void draw_gradient(std::uint64_t seed) {
    gradient =
        Numbers(gradient_type,
                gaussian<double>(static_cast<std::size_t>(count * rows * cols), seed));
  }
  ParameterUpdate update(std::int64_t step) {
    ParameterUpdate u;
    u.rule = &rule;
    u.layout = layout;
    u.count = count, u.rows = rows, u.cols = cols;
    u.weight_type = weight_type, u.gradient_type = gradient_type;
    u.weight = weight.data(), u.gradient = gradient.data();
    u.momentum = u.exp_avg = first.data(), u.exp_avg_sq = second.data();
    u.master = master.f32.data();
    u.low_precision = low_precision;
    u.seed = 77, u.step = step, u.maximize = maximize;
    return u;
  }
};

// One matrix (or all numbers) of a parameter through the function of its rule.
template <class T>
UpdateStatistics step_alone(Parameter& p, T* weight, std::vector<T> g, T* first,
                            T* second, std::int64_t rows, std::int64_t cols,
                            std::int64_t step) {
  const auto n = static_cast<std::size_t>(rows * cols);
  if (p.maximize) {
    for (T& value : g) value = -value;
  }
  if (const auto* adamw = std::get_if<AdamWRule>(&p.rule)) {
    return adamw_step<T, T>({weight, n}, g, {first, n}, {second, n}, step, *adamw);
  }
  if (const auto* sgd = std::get_if<SgdRule>(&p.rule)) {
    return sgd_step<T, T>({weight, n}, g, {first, n}, step, *sgd);
  }
  MatrixStepWorkspace workspace;
  return matrix_step<T, T>(view(weight, rows, cols),
                           view(static_cast<const T*>(g.data()), rows, cols),
                           view(first, rows, cols), p.rule, p.layout, workspace);
}

template <class T>
std::vector<T> widened(const Numbers& x, std::size_t first, std::size_t n) {
  std::vector<T> result(n);
  for (std::size_t i = 0; i < n; ++i) {
    result[i] = x.type == E::kF64   ? static_cast<T>(x.f64[first + i])
                : x.type == E::kF32 ? static_cast<T>(x.f32[first + i])
                                    : static_cast<T>(float(x.bf16[first + i]));
  }
  return result;
}

// What step_all must do, matrix by matrix.
void step_by_definition(Parameter& p, std::int64_t step) {
  const auto n = static_cast<std::size_t>(p.rows * p.cols);
  for (std::int64_t k = 0; k < p.count; ++k) {
    const std::size_t at = static_cast<std::size_t>(k) * n;
    if (p.weight_type == E::kF64) {
      p.result = step_alone<double>(
          p, p.weight.f64.data() + at, widened<double>(p.gradient, at, n),
          p.first.f64.data() + at, p.second.f64.data() + at, p.rows, p.cols, step);
      continue;
    }
    std::vector<float> wide = widened<float>(p.weight, at, n);
    const bool master =
        p.weight_type == E::kBf16 && p.low_precision == LowPrecision::kMasterCopy;
    for (std::size_t i = 0; i < n && master; ++i) {
      const float kept = p.master.f32[at + i];
      if (bfloat16(kept).bits == p.weight.bf16[at + i].bits) wide[i] = kept;
    }
    p.result = step_alone<float>(p, wide.data(), widened<float>(p.gradient, at, n),
                                 p.first.f32.data() + at, p.second.f32.data() + at,
                                 p.rows, p.cols, step);
    if (p.weight_type == E::kF32) {
      std::copy(wide.begin(), wide.end(), p.weight.f32.begin() + at);
      continue;
    }
    if (master) std::copy(wide.begin(), wide.end(), p.master.f32.begin() + at);
    const std::span<bfloat16> narrow(p.weight.bf16.data() + at, n);
    if (p.low_precision == LowPrecision::kStochastic) {
      round_stochastically(wide, narrow, 77, at);
    } else {
      round_to_nearest(wide, narrow);
    }
  }
}

// Element-wise rules, sizes around a chunk and above many, every type; then matrices.
std::vector<Parameter> all_kinds() {
  std::vector<Parameter> all;
  const AdamWRule adamw{.lr = 0.01, .weight_decay = 0.1};
  const SgdRule sgd{.lr = 0.01, .momentum = 0.9, .nesterov = true, .weight_decay = 0.1};
  const SgdRule plain{.lr = 0.01, .momentum = 0};
  for (const Rule& rule : {Rule(adamw), Rule(sgd), Rule(plain)}) {
    for (const std::int64_t n : {1, 37, 8191, 8192, 8193, 100'000}) {
      all.push_back({rule, E::kF32, E::kF32, 1, 1, n});
      all.push_back({rule, E::kF32, E::kBf16, 1, 1, n});
    }
    for (const E gradient : {E::kF64, E::kF32, E::kBf16}) {
      all.push_back({rule, E::kF64, gradient, 1, 1, 20'000});
    }
    for (const auto mode :
         {LowPrecision::kMasterCopy, LowPrecision::kStochastic, LowPrecision::kNearest}) {
      all.push_back({rule, E::kBf16, E::kBf16, 1, 1, 20'001, mode});
      all.push_back({rule, E::kBf16, E::kF32, 1, 1, 33, mode});
    }
    all.push_back({rule, E::kF32, E::kF32, 1, 1, 9'000, {}, /*maximize=*/true});
    all.push_back({rule, E::kBf16, E::kBf16, 1, 1, 9'000, {}, /*maximize=*/true});
    all.push_back({rule, E::kF64, E::kF64, 1, 1, 9'000, {}, /*maximize=*/true});
  }
  MuonRule muon;
  muon.lr = 0.01, muon.weight_decay = 0.1;
  PionRule pion;
  pion.lr = 0.01;
  for (const Rule& rule : {Rule(muon), Rule(pion)}) {
    all.push_back({rule, E::kF32, E::kF32, 1, 24, 40, {}, false, {.heads = {3}}});
    all.push_back({rule, E::kF32, E::kBf16, 3, 16, 20});
    all.push_back({rule, E::kF64, E::kF64, 2, 12, 20, {}, /*maximize=*/true});
    all.push_back({rule, E::kBf16, E::kBf16, 2, 16, 20, LowPrecision::kMasterCopy, true});
    all.push_back({rule, E::kBf16, E::kF32, 2, 16, 20, LowPrecision::kStochastic});
    all.push_back({rule, E::kBf16, E::kF32, 1, 16, 20, LowPrecision::kNearest});
  }
  for (std::size_t i = 0; i < all.size(); ++i) all[i].fill(100 + i);
  return all;
}

std::vector<Parameter> stepped(int threads, int steps, Executor& executor) {
  EXPECT_EQ(executor.threads(), threads);
  std::vector<Parameter> all = all_kinds();
  StepWorkspaces workspaces;
  workspaces.collect_spectrum = true;
  for (int t = 1; t <= steps; ++t) {
    std::vector<ParameterUpdate> updates;
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i].draw_gradient(1000 * static_cast<std::uint64_t>(t) + i);
      updates.push_back(all[i].update(t));
    }
    step_all(updates, executor, workspaces);
    for (std::size_t i = 0; i < all.size(); ++i) all[i].result = updates[i].result;
  }
  return all;
}

void expect_same(Parameter& a, Parameter& b, std::size_t index) {
  EXPECT_TRUE(same_bits(a.weight, b.weight)) << index;
  EXPECT_TRUE(same_bits(a.first, b.first)) << index;
  EXPECT_TRUE(same_bits(a.second, b.second)) << index;
  if (a.low_precision == LowPrecision::kMasterCopy) {
    EXPECT_TRUE(same_bits(a.master, b.master)) << index;
  }
}

TEST(StepAll, GivesTheBitsOfTheSingleRules) {
  SerialExecutor serial;
  std::vector<Parameter> all = stepped(1, 3, serial), expected = all_kinds();
  for (int t = 1; t <= 3; ++t) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i].draw_gradient(1000 * static_cast<std::uint64_t>(t) + i);
      step_by_definition(expected[i], t);
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    expect_same(all[i], expected[i], i);
    if (all[i].count > 1) continue;  // combined
    // sums of bf16 weights and gradients are cut elsewhere: in double, and in float by 32
    const auto near = [](double x) { return 64 * 0x1p-24 * x; };
    const UpdateStatistics &a = all[i].result, &b = expected[i].result;
    EXPECT_NEAR(a.gradient_norm, b.gradient_norm, near(b.gradient_norm)) << i;
    EXPECT_NEAR(a.update_rms, b.update_rms, near(b.update_rms)) << i;
    EXPECT_EQ(a.directions_passed, b.directions_passed) << i;
    EXPECT_EQ(a.stable_rank, b.stable_rank) << i;
  }
}

TEST(StepAll, GivesTheSameBitsOnEveryNumberOfThreads) {
  SerialExecutor serial;
  std::vector<Parameter> expected = stepped(1, 2, serial);
  for (const int threads : {1, 2, 3, 4, 7}) {
    const auto pool = make_thread_pool(threads);
    std::vector<Parameter> all = stepped(threads, 2, *pool);
    for (std::size_t i = 0; i < all.size(); ++i) {
      expect_same(all[i], expected[i], i);
      const UpdateStatistics &a = all[i].result, &b = expected[i].result;
      EXPECT_EQ(a.gradient_norm, b.gradient_norm) << threads << " threads, " << i;
      EXPECT_EQ(a.update_rms, b.update_rms) << threads << " threads, " << i;
      EXPECT_EQ(a.energy_kept, b.energy_kept) << threads << " threads, " << i;
      EXPECT_EQ(a.directions, b.directions) << threads << " threads, " << i;
    }
  }
}

// A large array alone is split, so that its scan and its step have several tasks.
TEST(StepAll, SplitsOneLargeArrayWithoutChangingIt) {
  for (const E gradient : {E::kF32, E::kBf16}) {
    Parameter expected{AdamWRule{}, E::kF32, gradient, 1, 1, 300'000};
    expected.fill(1), expected.draw_gradient(2);
    Parameter p = expected;
    step_by_definition(expected, 1);
    const auto pool = make_thread_pool(3);
    StepWorkspaces workspaces;
    ParameterUpdate update = p.update(1);
    step_all({&update, 1}, *pool, workspaces);
    expect_same(p, expected, 0);
    if (gradient == E::kF32) {
      EXPECT_EQ(update.result.gradient_norm, expected.result.gradient_norm);
      EXPECT_EQ(update.result.update_rms, expected.result.update_rms);
    }
  }
}

std::vector<Parameter> with_policy(NonFinite policy) {
  AdamWRule adamw;
  SgdRule sgd;
  MuonRule muon;
  adamw.nonfinite = sgd.nonfinite = muon.nonfinite = policy;
  std::vector<Parameter> all = {
      {adamw, E::kF32, E::kF32, 1, 1, 100'000}, {adamw, E::kF32, E::kF32, 1, 1, 100},
      {sgd, E::kF32, E::kBf16, 1, 1, 100},      {adamw, E::kF64, E::kF64, 1, 1, 9'000},
      {sgd, E::kBf16, E::kF32, 1, 1, 9'000},    {muon, E::kF32, E::kF32, 3, 8, 12},
      {muon, E::kF32, E::kF32, 1, 8, 12}};
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].fill(i), all[i].draw_gradient(50 + i);
  }
  return all;
}

TEST(StepAll, TreatsNonFiniteGradientsAsTheRuleSays) {
  const auto pool = make_thread_pool(2);
  for (const auto policy : {NonFinite::kSkip, NonFinite::kZero, NonFinite::kRaise}) {
    for (std::size_t bad = 0; bad < with_policy(policy).size(); ++bad) {
      std::vector<Parameter> all = with_policy(policy), before = all, expected = all;
      const auto last =
          static_cast<std::size_t>(all[bad].count * all[bad].rows * all[bad].cols) - 1;
      all[bad].gradient.set(last, kNaN);
      expected[bad].gradient.set(last, policy == NonFinite::kZero ? 0.0f : kNaN);
      std::vector<ParameterUpdate> updates;
      for (Parameter& p : all) updates.push_back(p.update(1));
      StepWorkspaces workspaces;
      const std::string message =
          message_of([&] { step_all(updates, *pool, workspaces); });
      if (policy == NonFinite::kRaise)
        expect_says(message, "the gradient must be finite");
      for (std::size_t i = 0; i < all.size(); ++i) {
        const bool unchanged =
            policy == NonFinite::kRaise || (i == bad && policy == NonFinite::kSkip);
        if (!unchanged) step_by_definition(expected[i], 1);
        expect_same(all[i], unchanged ? before[i] : expected[i], 100 * bad + i);
        EXPECT_EQ(updates[i].result.skipped, i == bad && policy == NonFinite::kSkip);
        if (policy == NonFinite::kZero && all[i].count == 1) {
          EXPECT_EQ(updates[i].result.update_rms > 0, true);
          EXPECT_NEAR(updates[i].result.gradient_norm, expected[i].result.gradient_norm,
                      1e-5 * expected[i].result.gradient_norm);
        }
      }
    }
  }
}

TEST(StepAll, RefusesIncompleteUpdatesBeforeAnythingIsWritten) {
  using Change = void (*)(ParameterUpdate&);
  struct Case {
    const char* says;
    Change change;
  };
  static const Rule bad_rule = AdamWRule{.lr = -1};
  static const Rule muon = MuonRule{};
  const Case cases[] = {
      {"rule must be given", [](ParameterUpdate& u) { u.rule = nullptr; }},
      {"lr", [](ParameterUpdate& u) { u.rule = &bad_rule; }},
      {"weight must be given", [](ParameterUpdate& u) { u.weight = nullptr; }},
      {"gradient must be given", [](ParameterUpdate& u) { u.gradient = nullptr; }},
      {"exp_avg must be given", [](ParameterUpdate& u) { u.exp_avg = nullptr; }},
      {"exp_avg_sq must be given", [](ParameterUpdate& u) { u.exp_avg_sq = nullptr; }},
      {"master must be given",
       [](ParameterUpdate& u) { u.weight_type = E::kBf16, u.master = nullptr; }},
      {"an f64 gradient", [](ParameterUpdate& u) { u.gradient_type = E::kF64; }},
      {"step must be >= 1", [](ParameterUpdate& u) { u.step = 0; }},
      {"must be >= 0", [](ParameterUpdate& u) { u.cols = -1; }},
      {"63 bits",
       [](ParameterUpdate& u) { u.count = u.rows = u.cols = std::int64_t{1} << 40; }},
      {"count and rows must be 1", [](ParameterUpdate& u) { u.rows = 2; }},
      {"momentum must be given",
       [](ParameterUpdate& u) { u.rule = &muon, u.momentum = nullptr; }},
      {"head count must divide",
       [](ParameterUpdate& u) { u.rule = &muon, u.layout.heads = {2}; }},
  };
  SerialExecutor serial;
  for (const Case& c : cases) {
    std::vector<Parameter> all(2, {AdamWRule{}, E::kF32, E::kF32, 1, 1, 9});
    for (Parameter& p : all) p.fill(1), p.draw_gradient(2);
    std::vector<Parameter> before = all;
    std::vector<ParameterUpdate> updates = {all[0].update(1), all[1].update(1)};
    c.change(updates[1]);
    StepWorkspaces workspaces;
    expect_says(message_of([&] { step_all(updates, serial, workspaces); }), c.says);
    expect_same(all[0], before[0], 0);
  }
}

TEST(StepAll, TakesNothingAndEmptyParameters) {
  SerialExecutor serial;
  StepWorkspaces workspaces;
  step_all({}, serial, workspaces);
  const Rule adamw = AdamWRule{}, muon = MuonRule{};
  std::vector<ParameterUpdate> updates(2);
  updates[0].rule = &adamw, updates[1].rule = &muon;
  for (ParameterUpdate& u : updates) u.result.update_rms = 5;
  step_all(updates, serial, workspaces);
  for (const ParameterUpdate& u : updates) EXPECT_EQ(u.result.update_rms, 0);
}

}  // namespace
}  // namespace pion
