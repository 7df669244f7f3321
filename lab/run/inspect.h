// SPDX-License-Identifier: Apache-2.0
// `pion inspect`: what an optimizer would see in a model file.
#pragma once

#include <filesystem>
#include <string>

#include "pion/optim/routing.h"

namespace pion::lab {

struct InspectOptions {
  std::filesystem::path
      model;  // a .safetensors file, an index .json of shards, or a directory
  std::filesystem::path
      config;            // Hugging Face config.json; "": the one beside the model, if any
  std::string preset;    // of routing; "": hidden matrices Pion, the rest AdamW
  bool spectra = false;  // singular values too
};

// The routing table, then the tensors of types that no optimizer steps, as I8 or F8_E4M3;
// with `spectra` also, per matrix that a spectral rule takes, block by
// block: shape, largest singular value, stable rank, effective rank (exp of the entropy
// of the squared singular values' shares) and how many directions Pion's default cutoff
// would pass if the matrix were the momentum. Throws std::invalid_argument if a file is
// damaged or a parameter cannot be placed.
std::string inspect(const InspectOptions& options);

}  // namespace pion::lab
