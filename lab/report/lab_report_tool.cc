// SPDX-License-Identifier: Apache-2.0
// lab_report_tool DIRECTORY HTML: write_report alone, for tests of builds without the
// command.
#include <cstdio>
#include <exception>

#include "lab/report/report.h"

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: lab_report_tool DIRECTORY HTML\n");
    return 2;
  }
  try {
    pion::lab::write_report(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
