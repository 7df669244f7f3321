// SPDX-License-Identifier: Apache-2.0
// compare.json as the report reads it, up to the data of the page.
#include "lab/report/comparison.h"
#include "lab/report/page_data.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pion::lab::report;
  pion::fuzz::accepts([&] {
    const Comparison comparison = parse_comparison(pion::fuzz::text_of(data, size));
    std::map<int, RunRecord> records;
    for (const Entrant& entrant : comparison.entrants)
      for (const int i : entrant.runs) records[i].optimizer = entrant.name;
    page_data(comparison, records).dump(-1, ' ', false, Json::error_handler_t::replace);
  });
  return 0;
}
