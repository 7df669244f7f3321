// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/bench.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>

#include "lab/bench/map_errors.h"
#include "lab/bench/roofline.h"
#include "lab/bench/sides.h"
#include "lab/bench/stages.h"
#include "pion/kernels/cpu_target.h"
#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kSeed = 1;
constexpr double kVanished = 1e-6;  // ||O*||_F of a block: nothing passed the filter

// Rounded to 5 digits: timings have fewer, and files stay readable.
double rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", value);
  return std::strtod(text, nullptr);
}

Json timing_json(const Timing& timing) {
  return {{"min_ms", rounded(timing.min_ms)},
          {"median_ms", rounded(timing.median_ms)},
          {"repetitions", timing.repetitions},
          {"calls", timing.calls}};
}

Json error_json(const std::optional<MapError>& error) {
  if (!error) return nullptr;
  return {{"frobenius", rounded(error->frobenius)},
          {"spectral", rounded(error->spectral)}};
}

Json machine_json(const Machine& machine) {
  return {{"cpu", machine.cpu},         {"cores", machine.cores},
          {"targets", machine.targets}, {"target", machine.target},
          {"bf16", machine.bf16},       {"limits", machine.limits},
          {"libtorch", TORCH_VERSION}};
}

Json peaks_json(const Peaks& peaks) {
  Json streams = Json::array();
  for (const Stream& stream : peaks.streams)
    streams.push_back({{"bytes", stream.bytes},
                       {"read_gbs", rounded(stream.read_gbs)},
                       {"update_gbs", rounded(stream.update_gbs)}});
  return {{"threads", peaks.threads},
          {"f32_gflops", rounded(peaks.f32_gflops)},
          {"bf16_dot_gflops", rounded(peaks.bf16_dot_gflops)},
          {"bf16_tile_gflops", rounded(peaks.bf16_tile_gflops)},
          {"streams", streams}};
}

std::string time_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Measures sets of rows one after the other.
class Session {
 public:
  Session(const BenchOptions& options, Machine machine)
      : options_(options), machine_(std::move(machine)) {}

  Json measure_peaks_of(const std::vector<int>& threads) {
    Json all = Json::array();
    for (const int count : threads) {
      peaks_[count] = measure_peaks(count, options_.quick ? 0.5 : 4.0);
      all.push_back(peaks_json(peaks_[count]));
    }
    return all;
  }

  // One JSON object a stage of every precision, then one a product.
  std::vector<Json> measure_stages_of(const StageTask& task, bool with_products) {
    const std::string shape = std::to_string(task.rows) + "x" + std::to_string(task.cols);
    std::vector<Json> rows;
    for (const Precision precision : task.precisions) {
      const std::vector<Stage> stages =
          measure_stages(task.rows, task.cols, task.rule, precision, options_.seconds);
      for (const Stage& stage : stages)
        rows.push_back(stage_json(shape, task.rule, precision_name(precision), stage));
    }
    if (!with_products) return rows;
    for (const Stage& product : measure_products(task.rows, task.cols, options_.seconds))
      rows.push_back(stage_json(shape, "-", "-", product));
    return rows;
  }

  // One JSON object a row.
  std::vector<Json> measure(const RowSet& set) {
    at::set_num_threads(set.threads);
    const Problem problem = make_problem(set.workload, make_labelled_rule(set.rule),
                                         set.group->spectrum, kSeed);
    return set.group->outside_map ? outside_rows(set, problem) : step_rows(set, problem);
  }

 private:
  Json stage_json(const std::string& shape, const std::string& rule,
                  std::string_view precision, const Stage& stage) const {
    const double gflops = 1e-3 * stage.flops / stage.us,
                 peak = peaks_.begin()->second.bf16_gflops(machine_.target) /
                        peaks_.begin()->first;
    Json row = {{"shape", shape},          {"rule", rule},
                {"precision", precision},  {"stage", stage.name},
                {"us", rounded(stage.us)}, {"gflops", nullptr},
                {"of_peak", nullptr},      {"gbs", nullptr}};
    if (stage.flops > 0) {
      row["gflops"] = rounded(gflops);
      row["of_peak"] = rounded(gflops / peak);
    }
    if (stage.bytes > 0) row["gbs"] = rounded(1e-3 * stage.bytes / stage.us);
    return row;
  }

  std::vector<Json> step_rows(const RowSet& set, const Problem& problem) {
    const auto& wanted = set.precisions;
    const bool with_f32 = !machine_.bf16 || std::find(wanted.begin(), wanted.end(),
                                                      Precision::kF32) != wanted.end();
    std::vector<Contender> contenders;
    for (const Precision precision : wanted)
      contenders.push_back(pion_side(problem, precision).contender);
    for (Side& peer : peer_sides(problem, with_f32 || names_peer("addmm_f32")))
      add_peer(contenders, std::move(peer.contender));
    const std::vector<Timing> timings =
        interleave(contenders, options_.seconds, options_.skip_slow);

    std::vector<Json> rows;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      Json row = row_of(set, problem, wanted[i]);
      row["pion"] = timing_json(timings[i]);
      add_peers(row, timings[i], std::span(contenders).subspan(wanted.size()),
                std::span(timings).subspan(wanted.size()));
      add_roofline(row, set, problem.rule, wanted[i], timings[i]);
      add_errors(row, set, problem, wanted[i]);
      rows.push_back(std::move(row));
    }
    return rows;
  }

  std::vector<Json> outside_rows(const RowSet& set, const Problem& problem) {
    if (!has_bf16(cpu_target())) return {};  // the passes of the f32 kernels are others
    const Precision precision = set.precisions.front();
    std::vector<Contender> sides = outside_map_contenders(problem), contenders;
    contenders.push_back(std::move(sides.front()));
    for (Contender& peer : std::span(sides).subspan(1))
      add_peer(contenders, std::move(peer));
    const std::vector<Timing> timings =
        interleave(contenders, options_.seconds, options_.skip_slow);
    Json row = row_of(set, problem, precision);
    row["pion"] = timing_json(timings.front());
    add_peers(row, timings.front(), std::span(contenders).subspan(1),
              std::span(timings).subspan(1));
    add_roofline(row, set, SgdRule{}, precision, timings.front());
    row["error"] = row["direct_bf16_error"] = nullptr;
    return {std::move(row)};
  }

  bool names_peer(const std::string& name) const {
    return std::find(options_.peers.begin(), options_.peers.end(), name) !=
           options_.peers.end();
  }

  // Unless others were asked for.
  void add_peer(std::vector<Contender>& contenders, Contender peer) const {
    if (!options_.peers.empty() && !names_peer(peer.name)) return;
    peer.may_be_left_out = true;
    contenders.push_back(std::move(peer));
  }

  static Json row_of(const RowSet& set, const Problem& problem, Precision precision) {
    Json row = {{"group", set.group->name},
                {"shape", set.workload.text},
                {"rule", set.rule},
                {"precision", precision_name(precision)},
                {"threads", set.threads},
                {"blocks", set.workload.blocks()},
                {"numbers", set.workload.entries()}};
    if (!is_matrix_rule(problem.rule)) row["precision"] = "f32";
    return row;
  }

  static void add_peers(Json& row, const Timing& pion, std::span<const Contender> peers,
                        std::span<const Timing> timings) {
    row["peers"] = row["left_out"] = Json::array();
    row["best_peer"] = row["ratio_min"] = row["ratio_median"] = nullptr;
    const Timing* best = nullptr;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      if (timings[i].repetitions == 0) {
        row["left_out"].push_back(peers[i].name);
        continue;
      }
      Json peer = {{"name", peers[i].name}};
      peer.update(timing_json(timings[i]));
      row["peers"].push_back(peer);
      if (best != nullptr && timings[i].min_ms >= best->min_ms) continue;
      best = &timings[i];
      row["best_peer"] = peers[i].name;
    }
    if (best == nullptr) return;
    const auto ratio = [](double peer, double own) -> Json {
      if (own <= 0) return nullptr;
      return rounded(peer / own);
    };
    row["ratio_min"] = ratio(best->min_ms, pion.min_ms);
    row["ratio_median"] = ratio(best->median_ms, pion.median_ms);
  }

  void add_roofline(Json& row, const RowSet& set, const Rule& rule, Precision precision,
                    const Timing& pion) {
    const Roofline bound = step_roofline(set.workload, rule, precision,
                                         peaks_.at(set.threads), machine_.target);
    row["roofline"] = {{"bf16_flops", bound.bf16_flops},
                       {"f32_flops", bound.f32_flops},
                       {"bytes", bound.bytes},
                       {"compute_ms", rounded(bound.compute_ms)},
                       {"memory_ms", rounded(bound.memory_ms)},
                       {"bound", bound.bound()}};
    row["fraction_of_peak"] = nullptr;
    if (bound.compute_ms > 0 && pion.min_ms > 0)
      row["fraction_of_peak"] = rounded(bound.compute_ms / pion.min_ms);
  }

  // Of the first block's gradient; the same for every number of threads.
  void add_errors(Json& row, const RowSet& set, const Problem& problem,
                  Precision precision) {
    constexpr double kMostFlops = 1e11;  // of the f64 map: some seconds
    row["error"] = row["direct_bf16_error"] = nullptr;
    if (!is_matrix_rule(problem.rule)) return;
    const ParameterShape& shape = set.workload.parameters.front();
    const SpectralMap map = rule_map(problem.rule, shape.rows, shape.cols);
    if (exact_map_flops(shape.rows, shape.cols, map) > kMostFlops) return;
    const std::string key = set.group->name + " " + set.workload.text + " " + set.rule;
    const at::Tensor block =
        cut_in_blocks(problem.gradients.front(), shape)[0].contiguous();
    if (exact_key_ != key) {
      exact_key_ = key;
      exact_ = exact_map(block, map);
    }
    if (at::norm(exact_).item<double>() < kVanished) return;
    row["error"] = error_json(map_error(pion_map(block, map, precision), exact_));
    row["direct_bf16_error"] = error_json(
        map_error(peer_map(block.to(at::kBFloat16), map.sequence, true), exact_));
  }

  const BenchOptions& options_;
  Machine machine_;
  std::map<int, Peaks> peaks_;
  std::string exact_key_;  // what exact_ is of
  at::Tensor exact_;
};

std::string describe(const RowSet& set) {
  return set.group->name + ", " + set.workload.text + ", " + set.rule + ", " +
         std::to_string(set.threads) + (set.threads == 1 ? " thread" : " threads");
}

Json error_row_json(const ErrorRow& row) {
  return {{"shape", row.shape},
          {"spectrum", row.spectrum},
          {"rule", row.rule},
          {"exact_norm", rounded(row.exact_norm)},
          {"direct_bf16", error_json(row.direct_bf16)},
          {"fast", error_json(row.fast)},
          {"accurate", error_json(row.accurate)},
          {"f32", error_json(row.f32)}};
}

}  // namespace

nlohmann::ordered_json run_plan(const Plan& plan, const BenchOptions& options,
                                const BenchCalls& calls) {
  const Machine machine = this_machine();
  Session session(options, machine);
  Json result = {{"format", 1},
                 {"complete", false},
                 {"version", calls.version},
                 {"started", time_text()},
                 {"command", calls.command},
                 {"seconds", options.seconds},
                 {"machine", machine_json(machine)}};
  std::vector<int> threads = options.threads;
  std::sort(threads.begin(), threads.end());
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
  const int threads_before = at::get_num_threads();
  calls.progress("peaks of this machine");
  result["peaks"] = session.measure_peaks_of(threads);
  result["rows"] = Json::array();
  result["errors"] = Json::array();
  result["stages"] = Json::array();
  calls.partial(result);
  const std::size_t total = plan.rows.size() + plan.errors.size() + plan.stages.size();
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    calls.progress("[" + std::to_string(i + 1) + "/" + std::to_string(total) + "] " +
                   describe(plan.rows[i]));
    for (Json& row : session.measure(plan.rows[i])) result["rows"].push_back(row);
    const bool last = i + 1 == plan.rows.size();
    if (last || plan.rows[i + 1].group != plan.rows[i].group) calls.partial(result);
  }
  std::string shape;  // of the task before: products are those of the shape
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const StageTask& task = plan.stages[i];
    const std::string name = std::to_string(task.rows) + "x" + std::to_string(task.cols);
    calls.progress("[" + std::to_string(plan.rows.size() + i + 1) + "/" +
                   std::to_string(total) + "] stages, " + name + ", " + task.rule);
    for (Json& row : session.measure_stages_of(task, name != shape))
      result["stages"].push_back(row);
    shape = name;
  }
  if (!plan.stages.empty()) calls.partial(result);
  at::set_num_threads(machine.cores);
  for (std::size_t i = 0; i < plan.errors.size(); ++i) {
    const ErrorTask& task = plan.errors[i];
    const std::size_t before = plan.rows.size() + plan.stages.size();
    calls.progress("[" + std::to_string(before + i + 1) + "/" + std::to_string(total) +
                   "] errors, " + std::to_string(task.rows) + "x" +
                   std::to_string(task.cols) + ", " + task.rule + ", " + task.spectrum);
    result["errors"].push_back(error_row_json(
        measure_errors(task.rows, task.cols, task.spectrum, task.rule, task.precisions)));
  }
  at::set_num_threads(threads_before);
  result["complete"] = true;
  return result;
}

}  // namespace pion::bench
