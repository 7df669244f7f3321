// SPDX-License-Identifier: Apache-2.0
#include "lab/run/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "lab/files/printable.h"

namespace pion::lab {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string metric_text(const Json& metrics, const std::string& name) {
  const auto at = metrics.find(name);
  if (at == metrics.end() || !at->is_number()) return "";
  return name + " " + short_number(at->get<double>());
}

}  // namespace

std::string duration_text(double seconds) {
  char text[48];
  const long whole = std::lround(std::min(std::max(seconds, 0.0), 1e9));
  if (whole >= 3600)
    std::snprintf(text, sizeof text, "%ld h %02ld min", whole / 3600, whole % 3600 / 60);
  else if (whole >= 60)
    std::snprintf(text, sizeof text, "%ld min %02ld s", whole / 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%ld s", whole);
  return text;
}

Progress::Progress(const TaskInfo& info, std::int64_t first, std::int64_t total,
                   bool quiet)
    : info_(info),
      first_(first),
      total_(total),
      quiet_(quiet),
      terminal_(::isatty(STDOUT_FILENO) == 1),
      started_(Clock::now()),
      shown_(started_) {}

Progress::~Progress() {
  if (line_open_) std::fputs("\n", stdout);
}

std::string Progress::status(std::int64_t done) const {
  const double elapsed = seconds_since(started_);
  const double rate = elapsed > 0 ? static_cast<double>(done - first_) / elapsed : 0;
  std::string text = std::to_string(done) + "/" + std::to_string(total_);
  if (!curve_.empty()) text += "  " + curve_;
  if (!score_.empty()) text += "  " + score_;
  if (rate > 0)
    text += "  " + short_number(rate) + " updates/s  " +
            duration_text(static_cast<double>(total_ - done) / rate) + " left";
  return text;
}

void Progress::show(std::int64_t done, bool force) {
  if (quiet_) return;
  const double interval_seconds = terminal_ ? 0.2 : 10.0;
  if (!force && seconds_since(shown_) < interval_seconds) return;
  shown_ = Clock::now();
  std::fprintf(stdout, terminal_ ? "\r\x1b[K%s" : "%s\n", status(done).c_str());
  std::fflush(stdout);
  line_open_ = terminal_;
}

void Progress::update(std::int64_t done, const Json& metrics) {
  if (const std::string text = metric_text(metrics, info_.curve); !text.empty())
    curve_ = text;
  show(done, false);
}

void Progress::evaluation(std::int64_t done, const Json& metrics) {
  if (const std::string text = metric_text(metrics, info_.score); !text.empty())
    score_ = "eval " + text;
  show(done, !terminal_);
}

void Progress::say(const std::string& line) {
  if (quiet_) return;
  std::fprintf(stdout, "%s%s\n", line_open_ ? "\r\x1b[K" : "", printable(line).c_str());
  std::fflush(stdout);
  line_open_ = false;
}

void Progress::warn(const std::string& what) {
  if (quiet_) std::fprintf(stderr, "warning: %s\n", printable(what).c_str());
  say("warning: " + what);
}

}  // namespace pion::lab
