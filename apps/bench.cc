// SPDX-License-Identifier: Apache-2.0
// `pion bench`.
#include "lab/bench/bench.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/bench/tables.h"
#include "lab/files/durable_file.h"
#include "lab/files/json_text.h"
#include "lab/files/printable.h"
#include "lab/run/run_directory.h"

namespace pion::apps {
namespace {
namespace fs = std::filesystem;

void print_list() {
  for (const bench::Group& group : bench::groups()) {
    std::cout << group.name << "  " << group.title << "\n  shapes   ";
    for (const std::string& shape : group.shapes) std::cout << " " << shape;
    std::cout << "\n  rules    ";
    for (const std::string& rule : group.rules) std::cout << " " << rule;
    if (!group.precisions.empty()) std::cout << "\n  precision";
    for (const Precision precision : group.precisions)
      std::cout << " " << bench::precision_name(precision);
    std::cout << "\n\n";
  }
}

// Refused before anything is measured.
void check_json_path(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder))
    throw std::invalid_argument("--json: no directory " + folder.string());
  if (fs::is_directory(path))
    throw std::invalid_argument("--json: must be a file, got the directory " +
                                path.string());
}

int print_tables_of(const std::string& path) {
  std::ifstream file(path);
  if (!file || fs::is_directory(path))
    throw std::invalid_argument("--from: no file " + path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    std::cout << lab::printable(bench::markdown_of_text(text));
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("--from: " + path + ": " + error.what());
  }
  return kSuccess;
}

std::string joined_peers() {
  std::string all;
  for (const std::string& name : bench::peer_names())
    all += (all.empty() ? "" : ", ") + name;
  return all;
}

struct Flags {
  bench::BenchOptions options;
  std::string json, from;
  bool list = false;
};

void declare(CLI::App& app, Flags& flags) {
  bench::BenchOptions& options = flags.options;
  app.add_option("--group", options.groups, "tables to measure, a,b,... [all]")
      ->delimiter(',');
  app.add_option("--shape", options.shapes,
                 "in place of groups: 128x1024, 8x128x1024 (heads below one another), "
                 "8x1024x128:cols (side by side), 4*64x64+256x64 (several parameters)")
      ->delimiter(',');
  app.add_option("--rules", options.rules,
                 "pion1 to pion5 (promotion steps), pion_auto, muon, adamw, sgd "
                 "[those of the group]")
      ->delimiter(',');
  app.add_option("--precision", options.precisions,
                 "fast, accurate, f32 [those of the group]")
      ->delimiter(',');
  app.add_option("--threads", options.threads, "numbers of threads, a,b,... [1]")
      ->delimiter(',');
  app.add_option("--seconds", options.seconds,
                 "for each shape, rule and number of threads [1; 0.1 with --quick]");
  app.add_option(
         "--peers", options.peers,
         "compare with these alone, a,b,... or none: " + joined_peers() + " [all]")
      ->delimiter(',');
  app.add_option("--skip-slow", options.skip_slow,
                 "leave peers out that take this many times the fastest side's time in "
                 "the warm-up, such as 5 [none]");
  app.add_option("--json", flags.json, "file to write the measurements to");
  app.add_option("--from", flags.from,
                 "measure nothing, print the tables of a file of --json");
  app.add_flag("--quick", options.quick, "a few small shapes, under a minute");
  app.add_flag("--errors", options.errors,
               "in place of times: errors against f64, of --shape or of some shapes");
  app.add_flag("--stages", options.stages,
               "in place of times: where the time of one block goes and how near its "
               "products come to the peak, of --shape or of some shapes");
  app.add_flag("--list", flags.list, "list the groups and measure nothing");
}

}  // namespace

int bench(const Invocation& invocation) {
  CLI::App app(
      "Times optimizer steps on this machine, interleaved with the fastest that LibTorch "
      "offers, and prints tables in Markdown, each when it is measured.",
      "pion bench");
  Flags flags;
  declare(app, flags);
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  if (flags.list) {
    print_list();
    return kSuccess;
  }
  if (!flags.from.empty()) return print_tables_of(flags.from);
  if (flags.options.quick && app.count("--seconds") == 0) flags.options.seconds = 0.1;
  const bench::Plan plan = bench::make_plan(flags.options);
  if (app.count("--json") > 0) check_json_path(flags.json);
  std::size_t printed = 0;  // parts; those of a result that goes on are final
  const auto show = [&](nlohmann::ordered_json result) {
    if (!flags.json.empty()) lab::replace_file(flags.json, lab::json_text(result, 1));
    result["complete"] = true;  // as far as it is printed
    const std::vector<std::string> parts = bench::markdown_parts(result);
    for (; printed < parts.size(); ++printed) std::cout << parts[printed] << std::flush;
  };
  show(bench::run_plan(
      plan, flags.options,
      {.version = lab::version_text(),
       .command = invocation.command,
       .progress = [](const std::string& line) { std::cerr << line << "\n"; },
       .partial = show}));
  return kSuccess;
}

}  // namespace pion::apps
