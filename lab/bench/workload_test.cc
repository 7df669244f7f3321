// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/workload.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <set>
#include <thread>

#include "lab/bench/bench.h"
#include "lab/bench/interleave.h"
#include "lab/bench/roofline.h"
#include "lab/bench/tables.h"
#include "tests/thrown_message.h"

namespace pion::bench {
namespace {

TEST(Workload, ReadsMatricesHeadsAndLists) {
  const Workload heads = read_workload("8x128x1024");
  ASSERT_EQ(heads.parameters.size(), 1u);
  EXPECT_EQ(heads.parameters[0].all_rows(), 8 * 128);
  EXPECT_EQ(heads.parameters[0].all_cols(), 1024);
  const Workload output = read_workload("14x896x64:cols");
  EXPECT_EQ(output.parameters[0].all_rows(), 896);
  EXPECT_EQ(output.parameters[0].all_cols(), 14 * 64);
  EXPECT_EQ(output.parameters[0].axis, 1);
  const Workload list = read_workload("8*64x64+2*256x64+2*64x256");
  EXPECT_EQ(list.parameters.size(), 12u);
  EXPECT_EQ(list.entries(), 8 * 64 * 64 + 4 * 256 * 64);
  EXPECT_EQ(list.blocks(), 12);
}

TEST(Workload, RefusesWhatItCannotRead) {
  for (const char* text :
       {"", "64", "64x", "x64", "0x64", "-1x64", "64x64x64x64", "64x64:rows", "a*64x64",
        "64x64+", "0*64x64", "1e3x64", "64 x64", "99999999999999999999x1", "65537*1x1",
        "1048576x1048576", "40000*1x1+40000*1x1"}) {
    EXPECT_NE(message_of([&] { read_workload(text); }), "") << "\"" << text << "\"";
  }
}

TEST(Workload, EveryGroupCanBeReadAndNamesAreItsOwn) {
  std::set<std::string> names;
  for (const Group& group : groups()) {
    EXPECT_TRUE(names.insert(group.name).second) << group.name;
    for (const std::string& shape : group.shapes) EXPECT_NO_THROW(read_workload(shape));
    for (const std::string& shape : group.quick)
      EXPECT_NE(std::find(group.shapes.begin(), group.shapes.end(), shape),
                group.shapes.end())
          << group.name << " " << shape;
    for (const std::string& rule : group.rules)
      EXPECT_EQ(is_matrix_rule(make_labelled_rule(rule)), !group.precisions.empty());
  }
}

TEST(Plan, TakesGroupsShapesRulesAndThreads) {
  const Plan plan = make_plan({.groups = {"tiny"}, .rules = {"muon"}});
  ASSERT_EQ(plan.rows.size(), 4u);
  EXPECT_EQ(plan.rows[0].precisions.size(), 3u);
  EXPECT_TRUE(plan.errors.empty());
  const Plan own = make_plan(
      {.shapes = {"3x4", "2x5x6"}, .rules = {"sgd", "pion4"}, .precisions = {"fast"}});
  ASSERT_EQ(own.rows.size(), 4u);
  EXPECT_EQ(own.rows[1].precisions, std::vector{Precision::kFast});
  EXPECT_EQ(own.rows[2].workload.blocks(), 2);
  const Plan errors = make_plan({.rules = {"pion2"}, .errors = true});
  EXPECT_TRUE(errors.rows.empty());
  EXPECT_EQ(errors.errors.size(), 5u * 4);  // shapes x spectra
  const Plan stages = make_plan({.shapes = {"3x4"}, .stages = true});
  EXPECT_TRUE(stages.rows.empty() && stages.errors.empty());
  EXPECT_EQ(stages.stages.size(), 2u);  // rules
}

TEST(Plan, RefusesBadFlagsByName) {
  const auto message = [](const BenchOptions& options) {
    return message_of([&] { make_plan(options); });
  };
  expect_says(message({.groups = {"head"}}), "--group: unknown group \"head\"; did you");
  expect_says(message({.shapes = {"64"}}), "--shape: a parameter must be ROWSxCOLS");
  expect_says(message({.rules = {"moun"}}), "--rules: a rule must be one of");
  expect_says(message({.precisions = {"bf16"}}), "--precision: a precision must be");
  expect_says(message({.threads = {0}}), "--threads: must be in [1,");
  expect_says(message({.threads = {}}), "--threads");
  expect_says(message({.seconds = 0}), "--seconds: must be in (0, 3600]");
  expect_says(message({.seconds = std::nan("")}), "--seconds");
  expect_says(message({.groups = {"tiny"}, .shapes = {"3x4"}}), "--shape: cannot");
  expect_says(message({.groups = {"tiny"}, .rules = {"sgd"}}), "--rules: leaves nothing");
  expect_says(message({.groups = {"mlp"}, .quick = true}), "--quick: leaves nothing");
}

// Flops by hand: 4 heads of 2 x 8, 5 steps: 4 (m^2 n + 17 m^3 + 2 m^2 n) = 4 (32 + 136 +
// 64); split products count three times, Q X with the rest of Q twice; direct for 3 x 4:
// 5 (3 m^2 n + m^3) = 5 (108 + 27), A^2 three times and, for Muon, P X twice where they
// are split.
TEST(Roofline, CountsFlopsAndBytesOfTheChosenAlgorithm) {
  const Peaks peaks{.threads = 1,
                    .f32_gflops = 10,
                    .bf16_dot_gflops = 20,
                    .streams = {{1 << 20, 5, 8}}};
  const Rule muon = make_labelled_rule("muon");
  // 64 times as large both ways: blocks of few rows are split under fast too
  constexpr double kTimes = 64.0 * 64 * 64;
  const Roofline fast =
      step_roofline(read_workload("4x128x512"), make_labelled_rule("pion2"),
                    Precision::kFast, peaks, "avx512_bf16");
  EXPECT_DOUBLE_EQ(fast.bf16_flops, 928 * kTimes);
  EXPECT_DOUBLE_EQ(fast.f32_flops, 0);
  EXPECT_DOUBLE_EQ(fast.bytes, 64 * 64 * 64 * 24);
  EXPECT_DOUBLE_EQ(fast.compute_ms, 928e-6 * kTimes / 20);
  EXPECT_DOUBLE_EQ(fast.memory_ms, 64 * 64 * 64 * 24e-6 / 8);
  EXPECT_STREQ(fast.bound(), "flops");
  const Roofline accurate = step_roofline(read_workload("4x2x8"), muon,
                                          Precision::kAccurate, peaks, "avx512_bf16");
  EXPECT_DOUBLE_EQ(accurate.bf16_flops, 4 * (32 + 3 * 136 + 128));
  EXPECT_DOUBLE_EQ(accurate.f32_flops, 0);
  const Roofline split = step_roofline(read_workload("4x3"), muon, Precision::kAccurate,
                                       peaks, "avx512_bf16");
  EXPECT_DOUBLE_EQ(split.bf16_flops, 5 * (36 + 3 * 27 + 2 * 72));
  const Roofline narrow =
      step_roofline(read_workload("4x3"), muon, Precision::kAccurate, peaks, "avx512");
  EXPECT_DOUBLE_EQ(narrow.bf16_flops, 675);
  const Roofline square =
      step_roofline(read_workload("4x3"), muon, Precision::kF32, peaks, "avx512");
  EXPECT_DOUBLE_EQ(square.f32_flops, 675);
  EXPECT_DOUBLE_EQ(square.bf16_flops, 0);
  const Roofline adamw = step_roofline(read_workload("4x3"), make_labelled_rule("adamw"),
                                       Precision::kF32, peaks, "avx512");
  EXPECT_DOUBLE_EQ(adamw.bytes, 12 * 28);
}

TEST(Interleave, TakesTurnsAndCountsThem) {
  std::vector<int> order;
  int slow_calls = 0;
  volatile double sink = 1;
  const auto work = [&](int amount) {
    for (int i = 0; i < amount; ++i) sink = sink * 1.0000001;
  };
  const std::vector<Contender> contenders = {
      {"slow", [&] { work(200000), order.push_back(0), ++slow_calls; }},
      {"fast", [&] { work(2000), order.push_back(1); }}};
  const std::vector<Timing> timings = interleave(contenders, 0.01);
  ASSERT_EQ(timings.size(), 2u);
  EXPECT_GE(timings[0].repetitions, 3);
  EXPECT_EQ(timings[0].repetitions, timings[1].repetitions);
  EXPECT_EQ(timings[0].calls, 1);
  EXPECT_LE(timings[0].min_ms, timings[0].median_ms);
  EXPECT_GE(slow_calls, timings[0].repetitions + 1);
  const int last_rounds = 3 * (timings[0].calls + timings[1].calls);
  // rounds: nobody takes a turn more than another
  const auto turns = [&](int who) {
    const auto calls = std::count(order.end() - last_rounds, order.end(), who);
    return calls / timings[static_cast<std::size_t>(who)].calls;
  };
  EXPECT_EQ(turns(0), 3);
  EXPECT_EQ(turns(1), 3);
}

TEST(Interleave, LeavesOutWhatIsSlowAndMayBe) {
  using namespace std::chrono_literals;
  std::vector<int> calls(3);
  const auto sleeps = [&](std::size_t who, std::chrono::milliseconds time) {
    return [&calls, who, time] { ++calls[who], std::this_thread::sleep_for(time); };
  };
  const std::vector<Contender> contenders = {
      {"own", sleeps(0, 20ms)},  // ten times the fastest, yet nobody said it may
      {"fast", sleeps(1, 2ms), true},
      {"slow", sleeps(2, 200ms), true}};
  const std::vector<Timing> timings = interleave(contenders, 0.01, /*slowest=*/30);
  EXPECT_GE(timings[0].repetitions, 3);
  EXPECT_GE(timings[1].repetitions, 3);
  EXPECT_EQ(timings[2].repetitions, 0);
  EXPECT_EQ(calls[2], 2);  // the warm-up
  EXPECT_GE(interleave(contenders, 0.01)[2].repetitions, 3);
}

TEST(Tables, RefuseWhatIsNoResult) {
  for (const char* text : {"", "{", "[]", "{}", "{\"format\": 2}", "{\"format\": 1}",
                           "{\"format\": 1, \"machine\": 3}"}) {
    expect_says(message_of([&] { markdown_of_text(text); }), "markdown: ");
  }
  expect_says(message_of([] { markdown_of_text(std::string(100'000, '[')); }),
              "nests too deep");
}

}  // namespace
}  // namespace pion::bench
