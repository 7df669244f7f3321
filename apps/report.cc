// SPDX-License-Identifier: Apache-2.0
// `pion report RUN_OR_COMPARISON`.
#include "lab/report/report.h"

#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"

namespace pion::apps {

int report(const Invocation& invocation) {
  CLI::App app(
      "Writes one HTML file, without need of a network, on a run or a comparison.",
      "pion report");
  std::string directory, out;
  app.add_option("RUN_OR_COMPARISON", directory, "its directory")->required();
  app.add_option("--out", out, "file to write [report.html in the directory]");
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  const std::filesystem::path html =
      out.empty() ? std::filesystem::path(directory) / "report.html"
                  : std::filesystem::path(out);
  lab::write_report(directory, html);
  std::cout << html.string() << "\n";
  return kSuccess;
}

}  // namespace pion::apps
