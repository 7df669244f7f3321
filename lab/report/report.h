// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace pion::lab {

// Writes one self-contained HTML page (charts, tables, a played game; no network) that
// shows what the optimizers did.
//
//   run_or_comparison  read only: a directory with compare.json (a comparison), or with
//                      metrics.jsonl, recipe.toml or result.json (a run, maybe unfinished)
//   html               written to a temporary name beside it, then renamed: a reader sees
//                      the old page or the new one
//
// What is missing or damaged inside a run (a truncated last line, an absent routing.toml)
// is left out and named on the page. The chart library and the page's parts come from the
// build's asset directory; the environment variable PION_REPORT_ASSETS names another one.
//
// Throws std::invalid_argument if the directory is neither, compare.json is no
// comparison, or the assets are missing; std::runtime_error if the page cannot be
// written.
void write_report(const std::filesystem::path& run_or_comparison,
                  const std::filesystem::path& html);

// Throws std::invalid_argument if PION_REPORT_ASSETS names a directory that lacks what
// the page is made of, which should be known before a long run and not at its end.
void check_report_assets();

}  // namespace pion::lab
