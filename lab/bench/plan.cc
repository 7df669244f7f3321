// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <thread>

#include "lab/bench/bench.h"

namespace pion::bench {
namespace {

// The words of one flag, each read by `read`; what that throws gets the flag's name.
template <class Read>
auto read_all(const char* flag, const std::vector<std::string>& words, Read read) {
  std::vector<std::decay_t<decltype(read(words.front()))>> values;
  try {
    for (const std::string& word : words) values.push_back(read(word));
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(flag) + ": " + error.what());
  }
  return values;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += " " + word;
  return text;
}

// Shapes given one by one: any rule, as in the group of heads.
const Group& own_shapes() {
  static const Group group = {.name = "custom",
                              .title = "Shapes of --shape",
                              .shapes = {},
                              .quick = {},
                              .rules = {"pion2", "muon"},
                              .precisions = find_group("heads").precisions};
  return group;
}

void check_peers(const BenchOptions& options) {
  std::vector<std::string> known = peer_names();
  known.push_back("none");
  for (const std::string& peer : options.peers) {
    if (std::find(known.begin(), known.end(), peer) == known.end())
      throw std::invalid_argument("--peers: must be one of" + joined(known) + ", got \"" +
                                  peer + "\"");
    if (peer == "none" && options.peers.size() > 1)
      throw std::invalid_argument("--peers: must be \"none\" alone or names of peers");
  }
  if (!(options.skip_slow > 1))
    throw std::invalid_argument("--skip-slow: must be > 1, got " +
                                std::to_string(options.skip_slow));
}

void check_numbers(const BenchOptions& options) {
  if (!(options.seconds > 0 && options.seconds <= 3600))
    throw std::invalid_argument("--seconds: must be in (0, 3600], got " +
                                std::to_string(options.seconds));
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (options.threads.empty())
    throw std::invalid_argument("--threads: must name one number of threads at least");
  for (const int threads : options.threads) {
    if (threads < 1 || threads > cores)
      throw std::invalid_argument("--threads: must be in [1, " + std::to_string(cores) +
                                  "], the cores of this machine, got " +
                                  std::to_string(threads));
  }
}

struct Choice {
  std::vector<std::string> rules;  // empty: the group's
  std::vector<Precision> precisions;
};

// The rows of one shape of a group.
void add_rows(const Group& group, const std::string& shape, const Choice& choice,
              const BenchOptions& options, std::vector<RowSet>& rows) {
  const auto& wanted = choice.rules.empty() ? group.rules : choice.rules;
  for (const std::string& rule : wanted) {
    const bool known =
        &group == &own_shapes() ||
        std::find(group.rules.begin(), group.rules.end(), rule) != group.rules.end();
    // a group of matrices takes any matrix rule when it is asked for
    const bool matrix = is_matrix_rule(make_labelled_rule(rule));
    const bool matrices = !group.precisions.empty() && !group.outside_map;
    if (!known && !(matrix && matrices)) continue;
    std::vector<Precision> precisions =
        choice.precisions.empty() ? group.precisions : choice.precisions;
    if (!matrix || precisions.empty()) precisions = {Precision::kF32};
    for (const int threads : options.threads) {
      if (group.outside_map && threads != 1) continue;  // the passes are timed on one
      rows.push_back({&group, read_workload(shape), rule, precisions, threads});
    }
  }
}

std::vector<std::string> shapes_or(const BenchOptions& options,
                                   std::vector<std::string> quick,
                                   std::vector<std::string> all) {
  if (!options.shapes.empty()) return options.shapes;
  return options.quick ? std::move(quick) : std::move(all);
}

void add_stages(const Choice& choice, const BenchOptions& options,
                std::vector<StageTask>& stages) {
  std::vector<std::string> rules = choice.rules;
  if (rules.empty()) rules = {"pion2", "muon"};
  std::vector<Precision> precisions = {Precision::kFast, Precision::kAccurate};
  if (!choice.precisions.empty()) precisions = choice.precisions;
  std::erase(precisions, Precision::kF32);  // stages are those of narrow products
  if (precisions.empty()) return;
  for (const std::string& shape :
       shapes_or(options, {"64x256"},
                 {"64x896", "128x1024", "128x2048", "1024x1024", "1024x3072"})) {
    const ParameterShape block = read_workload(shape).parameters.front();
    for (const std::string& rule : rules) {
      if (!is_matrix_rule(make_labelled_rule(rule))) continue;
      stages.push_back({block.rows, block.cols, rule, precisions});
    }
  }
}

void add_errors(const Choice& choice, const BenchOptions& options,
                std::vector<ErrorTask>& errors) {
  const std::vector<std::string> shapes = shapes_or(
      options, {"64x256"}, {"64x896", "128x1024", "512x1024", "1024x1024", "1024x3072"});
  std::vector<std::string> rules = choice.rules;
  if (rules.empty())
    rules = options.quick ? own_shapes().rules : find_group("heads").rules;
  std::vector<Precision> precisions = choice.precisions;
  if (precisions.empty()) precisions = own_shapes().precisions;
  for (const std::string& shape : shapes) {
    const ParameterShape block = read_workload(shape).parameters.front();
    for (const std::string& rule : rules) {
      if (!is_matrix_rule(make_labelled_rule(rule))) continue;
      for (const char* spectrum : {"power_law", "gaussian", "low_rank", "log_spaced"})
        errors.push_back({block.rows, block.cols, spectrum, rule, precisions});
    }
  }
}

}  // namespace

Plan make_plan(const BenchOptions& options) {
  check_numbers(options);
  check_peers(options);
  if (!options.groups.empty() && !options.shapes.empty())
    throw std::invalid_argument(
        "--shape: cannot be given with --group, which has shapes of its own");
  read_all("--shape", options.shapes, read_workload);
  Choice choice;
  choice.rules = read_all("--rules", options.rules, [](const std::string& label) {
    make_labelled_rule(label);
    return label;
  });
  choice.precisions = read_all("--precision", options.precisions, read_precision);
  std::vector<const Group*> chosen =
      read_all("--group", options.groups,
               [](const std::string& name) { return &find_group(name); });

  Plan plan;
  const bool times = !options.errors && !options.stages;
  const bool all = times && chosen.empty() && options.shapes.empty();
  if (times)
    for (const std::string& shape : options.shapes)
      add_rows(own_shapes(), shape, choice, options, plan.rows);
  if (all)
    for (const Group& group : groups()) chosen.push_back(&group);
  std::vector<const Group*> done;  // one named twice is measured once
  for (const Group* group : chosen) {
    if (std::find(done.begin(), done.end(), group) != done.end()) continue;
    done.push_back(group);
    for (const std::string& shape : options.quick ? group->quick : group->shapes)
      add_rows(*group, shape, choice, options, plan.rows);
  }
  if (options.errors || all) add_errors(choice, options, plan.errors);
  if (options.stages || all) add_stages(choice, options, plan.stages);
  if (plan.rows.empty() && plan.errors.empty() && plan.stages.empty())
    throw std::invalid_argument(
        std::string(options.quick && choice.rules.empty() ? "--quick" : "--rules") +
        ": leaves nothing to measure; --list shows the groups, their shapes and rules");
  return plan;
}

}  // namespace pion::bench
