// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/tables.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "lab/bench/workload.h"
#include "pion/optim/json_parser.h"

namespace pion::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string text(double value, int digits = 3) {
  char buffer[32];
  // no exponents where people compare columns
  if (value >= std::pow(10.0, digits) - 0.5 && value < 1e9) {
    std::snprintf(buffer, sizeof buffer, "%.0f", value);
  } else {
    std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
  }
  return buffer;
}

// A Markdown table with its columns aligned, so that a terminal shows it too. Columns
// without an entry ("" or "-") are left out.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  std::string str() const {
    std::vector<std::size_t> widths(rows_.front().size(), 3);
    std::vector<bool> used(widths.size());
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      for (std::size_t i = 0; i < widths.size(); ++i) {
        widths[i] = std::max(widths[i], rows_[r][i].size());
        if (r > 0 && !rows_[r][i].empty() && rows_[r][i] != "-") used[i] = true;
      }
    }
    std::string result;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      std::string line, rule;
      for (std::size_t i = 0; i < widths.size(); ++i) {
        if (!used[i]) continue;
        const std::string& entry = rows_[r][i];
        line += "| " + entry + std::string(widths[i] - entry.size() + 1, ' ');
        rule += "| " + std::string(widths[i], '-') + " ";
      }
      result += line + "|\n";
      if (r == 0) result += rule + "|\n";
    }
    return result;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string whole(const Json& value, std::int64_t unit = 1) {
  const std::optional<std::int64_t> count = json_integer(value);
  if (!count)
    throw std::invalid_argument("markdown: counts must be whole numbers, got " +
                                value.dump());
  return std::to_string(*count / unit);
}

std::string both(const Json& timing) {
  return text(timing.at("min_ms").get<double>()) + " / " +
         text(timing.at("median_ms").get<double>());
}

std::string number_or_dash(const Json& value, const char* unit = "") {
  return value.is_null() ? "-" : text(value.get<double>()) + unit;
}

// "1.2e-03 (2.1e-03)": Frobenius (spectral).
std::string error_text(const Json& error) {
  if (error.is_null()) return "-";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.1e (%.1e)", error.at("frobenius").get<double>(),
                error.at("spectral").get<double>());
  return buffer;
}

const Json& peer_named(const Json& row, const std::string& name) {
  for (const Json& peer : row.at("peers"))
    if (peer.at("name") == name) return peer;
  throw std::invalid_argument("markdown: best_peer must be one of peers, got \"" + name +
                              "\"");
}

std::string machine_text(const Json& result) {
  const Json& machine = result.at("machine");
  std::string targets;
  for (const Json& target : machine.at("targets"))
    targets += (targets.empty() ? "" : ", ") + target.get<std::string>();
  std::string all = "Measured " + result.at("started").get<std::string>() + " with " +
                    result.at("version").get<std::string>() + " on " +
                    machine.at("cpu").get<std::string>() + ", " +
                    whole(machine.at("cores")) + " cores; kernels for " + targets +
                    ", used: " + machine.at("target").get<std::string>() + ".\n\n    " +
                    result.at("command").get<std::string>() + "\n\n";
  for (const Json& limit : machine.at("limits"))
    all += "Limited by `" + limit.get<std::string>() + "`.\n\n";
  if (!result.at("complete").get<bool>()) all += "**Not complete: it was stopped.**\n\n";
  Table table({"threads", "f32 GF/s", "vdpbf16ps GF/s", "tdpbf16ps GF/s"});
  for (const Json& peaks : result.at("peaks"))
    table.add({whole(peaks.at("threads")), text(peaks.at("f32_gflops").get<double>()),
               text(peaks.at("bf16_dot_gflops").get<double>()),
               text(peaks.at("bf16_tile_gflops").get<double>())});
  all += "Peaks in registers (0: no such instruction):\n\n" + table.str();
  Table streams({"threads", "memory KiB", "read GB/s", "read and write GB/s"});
  for (const Json& peaks : result.at("peaks"))
    for (const Json& stream : peaks.at("streams"))
      streams.add({whole(peaks.at("threads")), whole(stream.at("bytes"), 1024),
                   text(stream.at("read_gbs").get<double>()),
                   text(stream.at("update_gbs").get<double>())});
  return all + "\nStreams over memory of a size:\n\n" + streams.str();
}

// Gain over one thread, if that was measured.
std::string speed_up(const Json& row, const Json& rows) {
  for (const Json& other : rows) {
    bool same = other.at("threads") == 1;
    for (const char* key : {"group", "shape", "rule", "precision"})
      same = same && other.at(key) == row.at(key);
    const double own = row.at("pion").at("min_ms").get<double>();
    if (same && own > 0)
      return text(other.at("pion").at("min_ms").get<double>() / own) + "x";
  }
  return "-";
}

// The ratios to the peers that are not the best.
std::string others(const Json& row) {
  const double own = row.at("pion").at("min_ms").get<double>();
  std::string all;
  for (const Json& peer : row.at("peers")) {
    if (peer.at("name") == row.at("best_peer") || own <= 0) continue;
    all += (all.empty() ? "" : ", ") + peer.at("name").get<std::string>() + " " +
           text(peer.at("min_ms").get<double>() / own) + "x";
  }
  if (!row.contains("left_out")) return all;  // files of before
  for (const Json& name : row.at("left_out"))
    all += (all.empty() ? "" : ", ") + name.get<std::string>() + " left out";
  return all;
}

// Per rule, precision and threads: geometric mean and least of the ratios.
std::string means(const std::vector<Json>& rows) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<double>> ratios;
  for (const Json& row : rows) {
    if (row.at("ratio_min").is_null()) continue;
    const std::string key = row.at("rule").get<std::string>() + " " +
                            row.at("precision").get<std::string>() + ", " +
                            whole(row.at("threads")) +
                            (row.at("threads") == 1 ? " thread" : " threads");
    if (!ratios.contains(key)) order.push_back(key);
    ratios[key].push_back(row.at("ratio_min").get<double>());
  }
  std::string all;
  for (const std::string& key : order) {
    if (ratios[key].size() < 2) continue;
    double logs = 0;
    for (const double ratio : ratios[key]) logs += std::log(ratio);
    all += "- " + key + ": geometric mean " +
           text(std::exp(logs / static_cast<double>(ratios[key].size()))) + "x, least " +
           text(*std::min_element(ratios[key].begin(), ratios[key].end())) + "x\n";
  }
  return all.empty() ? "" : "\nFaster than the best peer, over the shapes:\n\n" + all;
}

std::string group_text(const std::string& title, const std::vector<Json>& rows,
                       const Json& all) {
  Table table({"shape", "rule", "precision", "threads", "pion ms", "us a block",
               "best peer", "its ms", "faster", "by medians", "faster than others",
               "over 1 thread", "of peak", "least ms", "bound by", "error",
               "direct bf16"});
  for (const Json& row : rows) {
    const bool alone = row.at("best_peer").is_null();
    const std::string best = alone ? "-" : row.at("best_peer").get<std::string>();
    const Json& roofline = row.at("roofline");
    const double least = std::max(roofline.at("compute_ms").get<double>(),
                                  roofline.at("memory_ms").get<double>());
    const Json& share = row.at("fraction_of_peak");
    table.add({row.at("shape").get<std::string>(), row.at("rule").get<std::string>(),
               row.at("precision").get<std::string>(), whole(row.at("threads")),
               both(row.at("pion")),
               text(1e3 * row.at("pion").at("min_ms").get<double>() /
                    row.at("blocks").get<double>()),
               best, alone ? "-" : both(peer_named(row, best)),
               number_or_dash(row.at("ratio_min"), "x"),
               number_or_dash(row.at("ratio_median"), "x"), others(row),
               row.at("threads") == 1 ? "" : speed_up(row, all),
               share.is_null() ? "-" : text(100 * share.get<double>()) + " %",
               text(least), roofline.at("bound").get<std::string>(),
               error_text(row.at("error")), error_text(row.at("direct_bf16_error"))});
  }
  return "\n## " + title + "\n\n" + table.str() + means(rows);
}

// "yes" where neither norm of the error is larger than that of plain bf16.
std::string no_worse(const Json& error, const Json& direct) {
  if (error.is_null()) return "-";
  const bool good = error.at("frobenius") <= direct.at("frobenius") &&
                    error.at("spectral") <= direct.at("spectral");
  return good ? "yes" : "NO";
}

std::string errors_text(const Json& errors) {
  constexpr double kVanished = 1e-6;  // ||O*||_F
  Table table({"shape", "rule", "spectrum", "norm of the exact map", "direct bf16",
               "fast", "accurate", "f32", "accurate is no worse"});
  for (const Json& row : errors) {
    const bool vanished = row.at("exact_norm").get<double>() < kVanished;
    const auto column = [&](const char* key) {
      return vanished ? "-" : error_text(row.at(key));
    };
    table.add(
        {row.at("shape").get<std::string>(), row.at("rule").get<std::string>(),
         row.at("spectrum").get<std::string>(), text(row.at("exact_norm").get<double>()),
         column("direct_bf16"), column("fast"), column("accurate"), column("f32"),
         vanished ? "vanishes" : no_worse(row.at("accurate"), row.at("direct_bf16"))});
  }
  return "\n## Errors of one map against f64: relative Frobenius norm (spectral "
         "norm)\n\n" +
         table.str();
}

std::string stages_text(const Json& stages) {
  Table table({"shape", "rule", "precision", "stage or product", "us", "GF/s", "of peak",
               "GB/s"});
  for (const Json& row : stages) {
    const Json& share = row.at("of_peak");
    table.add({row.at("shape").get<std::string>(), row.at("rule").get<std::string>(),
               row.at("precision").get<std::string>(), row.at("stage").get<std::string>(),
               text(row.at("us").get<double>()), number_or_dash(row.at("gflops")),
               share.is_null() ? "-" : text(100 * share.get<double>()) + " %",
               number_or_dash(row.at("gbs"))});
  }
  return "\n## Stages and products of one block, one thread, the block in the caches "
         "that hold it\n\n" +
         table.str();
}

std::vector<std::string> checked_parts(const Json& result) {
  if (result.at("format") != 1)
    throw std::invalid_argument("markdown: format must be 1, got " +
                                result.at("format").dump());
  std::vector<std::string> parts = {machine_text(result)};
  const Json& rows = result.at("rows");
  std::vector<std::string> names;
  std::map<std::string, std::vector<Json>> of_group;
  for (const Json& row : rows) {
    const std::string name = row.at("group").get<std::string>();
    if (!of_group.contains(name)) names.push_back(name);
    of_group[name].push_back(row);
  }
  for (const std::string& name : names) {
    std::string title = name;
    for (const Group& group : groups())
      if (group.name == name) title = group.title;
    const bool first = parts.size() == 1;
    parts.push_back(
        (first ? "\nTimes of whole steps in milliseconds, minimum / median.\n" : "") +
        group_text(title, of_group[name], rows));
  }
  // files of before have none
  if (result.contains("stages") && !result.at("stages").empty())
    parts.push_back(stages_text(result.at("stages")));
  if (!result.at("errors").empty()) parts.push_back(errors_text(result.at("errors")));
  return parts;
}

}  // namespace

std::vector<std::string> markdown_parts(const Json& result) {
  try {
    return checked_parts(result);
  } catch (const Json::exception& error) {
    throw std::invalid_argument(
        std::string("markdown: must be a result of pion bench --json, got ") +
        error.what());
  }
}

std::string markdown(const Json& result) {
  std::string all;
  for (const std::string& part : markdown_parts(result)) all += part;
  return all;
}

std::string markdown_of_text(const std::string& json) {
  const Json result = try_json<Json>(json);
  if (result.is_discarded())
    throw std::invalid_argument(
        "markdown: must be a result of pion bench --json, got "
        "text that is no JSON, or nests too deep");
  return markdown(result);
}

}  // namespace pion::bench
