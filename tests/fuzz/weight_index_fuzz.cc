// SPDX-License-Identifier: Apache-2.0
// model.safetensors.index.json.
#include <filesystem>

#include "lab/files/weight_index.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pion::fuzz::accepts([&] {
    for (const std::string& name :
         pion::lab::parse_weight_index(pion::fuzz::text_of(data, size), "index"))
      pion::fuzz::require(
          (std::filesystem::path("folder") / name).lexically_normal().parent_path() ==
          "folder");
  });
  return 0;
}
