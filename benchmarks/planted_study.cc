// SPDX-License-Identifier: Apache-2.0
// Where the spectral filter pays and where it does not: everything in
// docs/results/planted_low_rank.md, by one command.
//
//   pion_planted_study --jobs 2 --out runs/planted_study
//
// Writes study.md (the tables) and study.json (every number behind them) to --out, the
// tables to standard output too, progress to standard error.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>

#include "benchmarks/study_problems.h"
#include "benchmarks/study_sections.h"

namespace {

using namespace pion::study;
using pion::lab::Json;

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string score_text(const Cell& cell) {
  const Mean score = mean_of(cell.scores);
  return fmt::format("{:.4f} ± {:.4f} @{:.1e}{}", score.mean, score.error, cell.best_lr,
                     cell.edge ? " EDGE" : "");
}

// One problem: a row a method with its whole tuning curve.
std::string curve_table(const std::vector<Cell>& cells) {
  std::string text = "| method | score on fresh seeds @lr |";
  std::string rule = "| --- | --- |";
  for (const double lr : cells.front().lrs)
    text += fmt::format(" {:.1e} |", lr), rule += " --- |";
  text += "\n" + rule + "\n";
  for (const Cell& cell : cells) {
    text += fmt::format("| {} | {} |", cell.method.name, score_text(cell));
    for (const double score : cell.tuning) text += fmt::format(" {:.3f} |", score);
    text += "\n";
  }
  return text;
}

// Several problems: a row a method, a column a problem.
std::string problem_table(const std::vector<Cell>& cells) {
  std::vector<std::string> problems, methods;
  std::map<std::pair<std::string, std::string>, std::string> scores;
  const auto add = [](std::vector<std::string>& names, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const Cell& cell : cells) {
    add(problems, cell.problem);
    add(methods, cell.method.name);
    scores[{cell.method.name, cell.problem}] = score_text(cell);
  }
  std::string text = "| method |", rule = "| --- |";
  for (const std::string& problem : problems)
    text += " " + problem + " |", rule += " --- |";
  text += "\n" + rule + "\n";
  for (const std::string& method : methods) {
    text += "| " + method + " |";
    for (const std::string& problem : problems) {
      const auto found = scores.find({method, problem});
      text += ' ';
      text += found == scores.end() ? "-" : found->second;
      text += " |";
    }
    text += "\n";
  }
  return text;
}

Json to_json(const Cell& cell) {
  return {{"problem", cell.problem},
          {"method", cell.method.name},
          {"lrs", cell.lrs},
          {"tuning", cell.tuning},
          {"tune_seeds", cell.tune_seeds},
          {"best_lr", cell.best_lr},
          {"edge", cell.edge},
          {"fresh_seeds", cell.fresh_seeds},
          {"scores", cell.scores},
          {"seconds", cell.seconds}};
}

Section planted_section(const std::string& group, int jobs, const Progress& progress) {
  std::vector<Cell> cells = planted_cells(group);
  in_parallel(cells.size(), jobs, [&](std::size_t i) {
    tune_and_score(cells[i]);
    progress(fmt::format("{}: {}, {}: {} ({:.0f} s)", group, cells[i].problem,
                         cells[i].method.name, score_text(cells[i]), cells[i].seconds));
  });
  Section section;
  section.markdown = group == "demo" ? curve_table(cells) : problem_table(cells);
  section.json = Json::array();
  for (const Cell& cell : cells) section.json.push_back(to_json(cell));
  return section;
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  if (!file) throw std::runtime_error("write: cannot write " + path.string());
}

int run_study(const std::vector<std::string>& only, int jobs,
              const std::filesystem::path& out) {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
        .count();
  };
  std::mutex mutex;
  const Progress progress = [&](const std::string& line) {
    const std::lock_guard lock(mutex);
    std::cerr << fmt::format("{:6.0f} s  {}\n", seconds(), line);
  };
  std::filesystem::create_directories(out);
  Json json = {{"cpu", cpu_model()}, {"jobs", jobs}};
  std::string markdown;
  for (const Group& group : groups()) {
    if (!only.empty() && std::find(only.begin(), only.end(), group.name) == only.end())
      continue;
    const double begin = seconds();
    const Section section =
        group.name == "forgetting"      ? forgetting_section(jobs, progress)
        : group.name == "least_squares" ? least_squares_section(jobs, progress)
                                        : planted_section(group.name, jobs, progress);
    const std::string text =
        fmt::format("## {}\n\n{}\n`--only {}`: {:.0f} s\n\n", group.title,
                    section.markdown, group.name, seconds() - begin);
    std::cout << text << std::flush;
    markdown += text;
    json[group.name] = section.json;
    write(out / "study.md",
          markdown);  // after every group: a long study may be interrupted
    write(out / "study.json", json.dump(1) + "\n");
  }
  std::cout << fmt::format("{} jobs, {}, {:.0f} s\n", jobs, cpu_model(), seconds());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Where the spectral filter pays and where it does not");
  int jobs = 2;
  std::string out = "runs/planted_study";
  std::vector<std::string> only, names;
  for (const Group& group : groups()) names.push_back(group.name);
  app.add_option("--jobs", jobs, "runs at a time, a thread each")
      ->check(CLI::Range(1, 1024));
  app.add_option("--only", only, "groups to run, separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.add_option("--out", out, "directory for study.md and study.json");
  CLI11_PARSE(app, argc, argv);
  try {
    return run_study(only, jobs, out);
  } catch (const std::exception& error) {
    std::cerr << "pion_planted_study: " << error.what() << "\n";
    return 1;
  }
}
