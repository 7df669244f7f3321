// SPDX-License-Identifier: Apache-2.0
#include "lab/report/report.h"

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "lab/files/durable_file.h"
#include "lab/files/installed_folder.h"
#include "lab/files/plain_name.h"
#include "lab/report/escape.h"
#include "lab/report/page_data.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;
using namespace report;

fs::path asset_directory() {
  const char* other = std::getenv("PION_REPORT_ASSETS");
  if (other != nullptr && *other != '\0') return other;
  const fs::path installed = installed_folder();
  return installed.empty() ? PION_REPORT_ASSETS_DIR : installed / "report";
}

std::string asset(const std::string& name) {
  const fs::path path = asset_directory() / name;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (file) content << file.rdbuf();
  if (content.str().empty()) {
    throw std::invalid_argument(
        "write_report: the page's assets must be in " + asset_directory().string() +
        ", got no " + name +
        "; build the target report_assets, or name their directory in "
        "PION_REPORT_ASSETS");
  }
  return content.str();
}

constexpr std::array kAssets = {"page.html", "page.css", "vega.js", "page.js"};

// The runs whose files the page needs: those at the tuned rates. Missing directories are
// noted.
std::map<int, RunRecord> read_records(const Comparison& comparison,
                                      const fs::path& directory) {
  std::map<int, RunRecord> records;
  for (const Entrant& entrant : comparison.entrants) {
    for (const int i : entrant.runs) {
      const fs::path named = comparison.runs[i].directory;
      fs::path run = path_within(directory, named);
      if (!fs::is_directory(run)) run = path_within(directory, named.filename());
      RunRecord record;
      if (!named.empty() && fs::is_directory(run)) {
        record = read_run(run);
      } else {
        record.name = named.string();
        record.notes = {"the run's directory is missing"};
      }
      record.optimizer = comparison.runs[i].optimizer;
      record.seed = comparison.runs[i].seed;
      records.emplace(i, std::move(record));
    }
  }
  return records;
}

Json collect(const fs::path& directory) {
  const fs::path file = directory / "compare.json";
  if (fs::is_regular_file(file)) {
    std::ifstream stream(file, std::ios::binary);
    std::ostringstream content;
    content << stream.rdbuf();
    const Comparison comparison = parse_comparison(content.str());
    return page_data(comparison, read_records(comparison, directory));
  }
  if (!is_run(directory)) {
    throw std::invalid_argument(
        "write_report: the directory must hold compare.json (a comparison) or "
        "metrics.jsonl, recipe.toml or result.json (a run), got " +
        directory.string() + " with none of them");
  }
  const RunRecord run = read_run(directory);
  return page_data(comparison_of(run), {{0, run}});
}

// Every {{name}} of the template, replaced once: inserted text is not searched again.
std::string filled(const std::string& page,
                   const std::map<std::string, std::string>& parts) {
  std::string result;
  std::size_t at = 0;
  for (std::size_t open; (open = page.find("{{", at)) != std::string::npos;) {
    const std::size_t close = page.find("}}", open);
    if (close == std::string::npos) break;
    result +=
        page.substr(at, open - at) + parts.at(page.substr(open + 2, close - open - 2));
    at = close + 2;
  }
  return result + page.substr(at);
}

void write_page(const fs::path& path, const std::string& content) {
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  try {
    replace_file(path, content);
  } catch (const std::exception& error) {
    throw std::runtime_error("write_report: " + path.string() +
                             " must be writable, got: " + error.what() +
                             "; check the path and the disk's free space");
  }
}

}  // namespace

void check_report_assets() {
  if (asset_directory() == PION_REPORT_ASSETS_DIR) return;
  for (const char* name : kAssets) asset(name);
}

void write_report(const fs::path& run_or_comparison, const fs::path& html) {
  const Json data = collect(run_or_comparison);
  const std::string json = data.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string title = member(data, "outcome")["headline"].get<std::string>();
  write_page(html,
             filled(asset("page.html"), {{"title", escape_html(title)},
                                         {"style", asset("page.css")},
                                         {"data", escape_script_json(json)},
                                         {"charts", escape_script(asset("vega.js"))},
                                         {"script", escape_script(asset("page.js"))}}));
}

}  // namespace pion::lab
