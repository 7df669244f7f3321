// SPDX-License-Identifier: Apache-2.0
#include "lab/report/run_record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <sstream>

#include "lab/report/page_data.h"
#include "lab/report/routing_table.h"

namespace pion::lab::report {
namespace {

const std::string kLines =
    R"({"kind":"update","step":1,"wall_seconds":0.5,"lr_factor":1,"metrics":{"loss":2.5}})"
    "\n"
    R"({"kind":"optimizer","step":1,"parameters":[{"name":"w","rule":"pion","update_rms":0.1,)"
    R"("directions_passed":4,"directions":16,"stable_rank":2,"energy_kept":0.5,"skipped":3}]})"
    "\n"
    R"({"kind":"evaluation","step":1,"final":true,"metrics":{"score":7}})"
    "\n"
    R"({"kind":"warning","step":1,"message":"empty update"})"
    "\n"
    R"({"kind":"update","step":2,"wall_seconds":1.0,"lr_factor":1,"metrics":{"loss":1.5,"new":1}})"
    "\n";

Metrics read(const std::string& text) {
  std::istringstream lines(text);
  return read_metrics(lines);
}

TEST(ReadMetrics, FillsTheTables) {
  const Metrics metrics = read(kLines);
  EXPECT_EQ(metrics.updates.step, (std::vector<double>{1, 2}));
  EXPECT_EQ(metrics.updates.metrics.at("loss"), (std::vector<double>{2.5, 1.5}));
  EXPECT_TRUE(std::isnan(metrics.updates.metrics.at("new")[0]));
  EXPECT_EQ(metrics.evaluations.metrics.at("score")[0], 7.0);
  ASSERT_EQ(metrics.parameters.size(), 1u);
  EXPECT_EQ(metrics.parameters[0].values.at("directions_passed")[0], 4.0);
  EXPECT_EQ(metrics.parameters[0].skipped, 3.0);
  EXPECT_EQ(metrics.warnings[0].message, "empty update");
  EXPECT_TRUE(metrics.notes.empty());
}

TEST(ReadMetrics, KeepsTheErrorThatNoResumeFollowed) {
  const std::string error = R"({"kind":"error","step":2,"message":"disk full"})"
                            "\n";
  EXPECT_EQ(read(kLines + error).error, "disk full");
  EXPECT_EQ(read(kLines + error +
                 R"({"kind":"resume","step":1})"
                 "\n")
                .error,
            "");
}

TEST(ReadMetrics, IgnoresACutOffLastLineAndSaysSo) {
  // every place at which a kill may cut the last line
  const std::size_t last = kLines.rfind('\n', kLines.size() - 2) + 1;
  for (std::size_t end = last + 1; end + 1 < kLines.size(); ++end) {
    const Metrics metrics = read(kLines.substr(0, end));
    EXPECT_EQ(metrics.updates.step.size(), 1u) << end;
    ASSERT_EQ(metrics.notes.size(), 1u) << end;
    EXPECT_NE(metrics.notes[0].find("line 5"), std::string::npos) << metrics.notes[0];
  }
  // whole but for its newline: nothing is lost
  EXPECT_EQ(read(kLines.substr(0, kLines.size() - 1)).updates.step.size(), 2u);
}

TEST(ReadMetrics, CountsDamagedLinesInTheMiddle) {
  const Metrics metrics = read("not json\n[1]\n" + kLines);
  EXPECT_EQ(metrics.updates.step.size(), 2u);
  ASSERT_EQ(metrics.notes.size(), 1u);
  EXPECT_NE(metrics.notes[0].find("2 damaged lines"), std::string::npos);
}

TEST(ReadMetrics, ReadsNanAsAGap) {
  const Metrics metrics = read(
      "{\"kind\":\"update\",\"step\":1,\"metrics\":{\"a\":NaN,\"b\":-Infinity,\"c\":1,"
      "\"NaN\":2}}\n");
  EXPECT_EQ(metrics.updates.names, (std::vector<std::string>{"c", "NaN"}));
  EXPECT_TRUE(metrics.notes.empty());
}

// A copy with one to four bytes changed, removed or doubled.
std::string mutated(std::string text, std::mt19937& random) {
  const std::string alphabet = "{}[]\",:0129eE.-+ntfu\\\n\x80\xff <";
  for (unsigned edits = 1 + random() % 4; edits > 0 && !text.empty(); --edits) {
    const std::size_t at = random() % text.size();
    switch (random() % 4) {
      case 0:
        text[at] = alphabet[random() % alphabet.size()];
        break;
      case 1:
        text.erase(at, 1 + random() % 20);
        break;
      case 2:
        text.insert(at, text.substr(random() % text.size(), random() % 40));
        break;
      case 3:
        text.resize(at);
        break;
    }
  }
  return text;
}

TEST(Fuzz, DamagedMetricsNeverThrowAndTheRestStillMakesAPage) {
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    const std::string text = mutated(kLines, random);
    RunRecord run;
    ASSERT_NO_THROW({
      run.metrics = read(text);
      page_data(comparison_of(run), {{0, run}})
          .dump(-1, ' ', false, Json::error_handler_t::replace);
    }) << text;
  }
}

TEST(Fuzz, DamagedComparisonsThrowOnlyInvalidArgument) {
  const std::string comparison =
      R"({"recipe":"r","task":"t","score":"s","higher_is_better":true,"optimizers":["pion","muon"],)"
      R"("lr_key":"lr","grid":{"pion":[0.1,0.2],"muon":[1]},"best":{"pion":0.2,"muon":1},"runs":[)"
      R"({"dir":"a","optimizer":"pion","lr":0.2,"seed":1,"phase":"final","status":"complete",)"
      R"("score":1.5,"wall_seconds":3},{"dir":"b","optimizer":"pion","lr":0.2,"seed":2,)"
      R"("phase":"final","status":"complete","score":2.5,"wall_seconds":3},{"dir":"c",)"
      R"("optimizer":"muon","lr":1,"seed":1,"phase":"tune","status":"failed","score":null}]})";
  std::mt19937 random(12);
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    const std::string text = mutated(comparison, random);
    try {
      const Comparison parsed = parse_comparison(text);
      RunRecord run;
      run.metrics = read(kLines);
      page_data(parsed, {{0, run}}).dump(-1, ' ', false, Json::error_handler_t::replace);
      ++accepted;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find("compare.json must"), std::string::npos);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what() << " on " << text;
    }
  }
  EXPECT_GT(accepted, 100);  // the fuzzing reaches beyond the JSON parser
}

TEST(ReadRun, WhatNestsTooDeepIsLeftOutAndNoted) {
  const std::string deep(100'000, '[');
  std::string dotted = "a";
  for (int i = 0; i < 30'000; ++i) dotted += ".a";
  std::istringstream lines(kLines + deep + "\n");
  const RunRecord run = read_run("r", &lines, [&](const char* name) {
    return std::string(name).ends_with(".toml") ? dotted + " = 1" : "{\"a\":" + deep;
  });
  EXPECT_EQ(run.metrics.updates.step.size(), 2u);
  std::string notes;
  for (const std::string& note : run.notes) notes += note + "\n";
  for (const char* wanted : {"environment.json is not JSON, or nests too deep",
                             "sample.json is not JSON", "result.json is not JSON",
                             "recipe.toml is not TOML", "routing.toml holds no list"})
    EXPECT_NE(notes.find(wanted), std::string::npos) << wanted << "\n" << notes;
  EXPECT_THROW(parse_comparison(R"({"runs":[],"optimizers":)" + deep),
               std::invalid_argument);
  EXPECT_NO_THROW(page_data(comparison_of(run), {{0, run}}).dump());
}

TEST(RoutingTable, FollowsARulesNameToItsKeys) {
  const Json table = routing_table(
      "version = 1\n[rules.pion_2]\nrule = \"pion\"\nlr = 2e-2\nscale = \"original\"\n"
      "[[parameters]]\nname = \"qkv\"\nshape = [96, 32]\nrule = \"pion_2\"\naxis = 0\n"
      "heads = [4, 2, 2]\n");
  EXPECT_EQ(table["columns"],
            Json({"name", "shape", "rule", "heads", "axis", "scale", "lr"}));
  EXPECT_EQ(table["rows"][0],
            Json({"qkv", "96 × 32", "pion_2", "4, 2, 2", "0", "original", "0.02"}));
}

TEST(RoutingTable, ShowsRulesWrittenAsTextOrAsTables) {
  const Json table = routing_table(
      "version = 1\n[[routes]]\nname = \"w\"\nshape = [64, 32]\nrule = \"pion\"\nlr = "
      "1e-3\n"
      "[[routes]]\nname = \"b\"\n[routes.rule]\nname = \"adamw\"\nlr = 3e-4\n");
  EXPECT_EQ(table["columns"], Json({"name", "shape", "rule", "lr"}));
  EXPECT_EQ(table["rows"][0], Json({"w", "64 × 32", "pion", "0.001"}));
  EXPECT_EQ(table["rows"][1], Json({"b", "", "adamw", "0.0003"}));
  EXPECT_TRUE(routing_table("no toml [").is_null());
}

}  // namespace
}  // namespace pion::lab::report
