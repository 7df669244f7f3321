// SPDX-License-Identifier: Apache-2.0
// `pion inspect MODEL`.
#include "lab/run/inspect.h"

#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"

namespace pion::apps {

int inspect(const Invocation& invocation) {
  CLI::App app(
      "Shows which rule every parameter of a model would take, and the matrices' "
      "spectra.",
      "pion inspect");
  std::string model, config, preset;
  bool spectra = false;
  app.add_option("MODEL", model,
                 "a .safetensors file, an index .json of shards, or a directory with one")
      ->required();
  app.add_option("--config", config,
                 "config.json with the head counts [the one beside the model]");
  app.add_option("--preset", preset, "routing preset, see `pion optimizers`");
  app.add_flag(
      "--spectra", spectra,
      "singular values: largest, ranks, and what Pion's default cutoff would pass");
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  std::cout << lab::inspect(
      {.model = model, .config = config, .preset = preset, .spectra = spectra});
  return kSuccess;
}

}  // namespace pion::apps
