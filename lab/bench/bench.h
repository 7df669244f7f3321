// SPDX-License-Identifier: Apache-2.0
// What `pion bench` does: a plan from its flags, measurements, one JSON object.
#pragma once

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lab/bench/workload.h"

namespace pion::bench {

struct BenchOptions {
  std::vector<std::string> groups;             // empty: all, or none if there are shapes
  std::vector<std::string> shapes;             // read_workload; in place of groups
  std::vector<std::string> rules, precisions;  // empty: those of every group
  std::vector<int> threads = {1};
  double seconds = 1.0;  // for one set of rows: one shape, rule and number of threads
  bool quick = false;    // few shapes, and 0.1 s unless `seconds` was set
  std::vector<std::string> peers;  // peer_names(), or "none"; empty: all
  // Peers that take more than this times the fastest side's time in the warm-up are left
  // out; > 1.
  double skip_slow = std::numeric_limits<double>::infinity();
  // In place of times, of `shapes` or of some of their own: the error tables; where the
  // time of one block goes.
  bool errors = false, stages = false;
};

// Rows that are measured together, by turns with their peers.
struct RowSet {
  const Group* group = nullptr;
  Workload workload;
  std::string rule;
  std::vector<Precision> precisions;  // one row each; one unused for element-wise rules
  int threads = 1;
};

// One line of an error table to be measured.
struct ErrorTask {
  std::int64_t rows, cols;
  std::string spectrum, rule;
  std::vector<Precision> precisions;
};

// One block whose stages are measured.
struct StageTask {
  std::int64_t rows, cols;
  std::string rule;
  std::vector<Precision> precisions;
};

struct Plan {
  std::vector<RowSet> rows;
  std::vector<ErrorTask> errors;
  std::vector<StageTask> stages;
};

// Throws std::invalid_argument that begins with the flag: unknown names, numbers out of
// range, a choice that leaves nothing to measure.
Plan make_plan(const BenchOptions& options);

// Runs the plan. `progress` gets a line before every set of rows, `partial` the object as
// it is after the peaks, every group and the stages, with "complete": false. The result:
//
//   format     1
//   complete   bool
//   version, started, command, seconds
//   machine    {cpu, cores, targets, target, bf16, limits, libtorch}
//   peaks      [{threads, f32_gflops, bf16_dot_gflops, bf16_tile_gflops,
//                streams: [{bytes, read_gbs, update_gbs}]}]
//   rows       [{group, shape, rule, precision, threads, heads, numbers,
//                pion: {min_ms, median_ms, repetitions, calls}, peers: [{name, ...}],
//                left_out: [names of slow peers],
//                best_peer, ratio_min, ratio_median (null where there is no peer),
//                roofline: {bf16_flops, f32_flops, bytes, compute_ms, memory_ms, bound},
//                fraction_of_peak, error, direct_bf16_error}]
//   errors     [{shape, spectrum, rule, exact_norm, direct_bf16, fast, accurate, f32}]
//   stages     [{shape, rule, precision, stage, us, gflops, of_peak, gbs}]; the products
//              alone have no rule and no precision
//
// Errors are {frobenius, spectral}, or null where the map in f64 would take too long.
struct BenchCalls {
  std::string version, command;
  std::function<void(const std::string&)> progress;
  std::function<void(const nlohmann::ordered_json&)> partial;
};
nlohmann::ordered_json run_plan(const Plan& plan, const BenchOptions& options,
                                const BenchCalls& calls);

}  // namespace pion::bench
