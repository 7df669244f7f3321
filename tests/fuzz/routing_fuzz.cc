// SPDX-License-Identifier: Apache-2.0
// A routing in TOML: as the library reads it, and as the report does.
#include "lab/report/routing_table.h"
#include "pion/optim/routing.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = pion::fuzz::text_of(data, size);
  std::string written;
  pion::fuzz::accepts([&] {
    const pion::Routing routing = pion::Routing::from_toml(text);
    routing.table();
    written = routing.to_toml();
  });
  if (!written.empty())
    pion::fuzz::require(pion::fuzz::accepts([&] { pion::Routing::from_toml(written); }));
  pion::lab::report::routing_table(text);
  return 0;
}
