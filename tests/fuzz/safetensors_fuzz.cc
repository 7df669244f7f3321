// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file.
#include "lab/files/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file = pion::fuzz::text_of(data, size);
  pion::fuzz::accepts([&] {
    const auto first = file.substr(0, pion::lab::kSafetensorsLengthBytes);
    const auto start = file.substr(0, pion::lab::safetensors_start(first, size));
    const auto header = pion::lab::parse_safetensors(start, size, "file");
    for (const auto& [name, record] : header.tensors)
      pion::fuzz::require(record.begin <= record.end &&
                          record.end <= size - header.data_start);
  });
  return 0;
}
