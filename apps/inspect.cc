// SPDX-License-Identifier: Apache-2.0
// `pion inspect MODEL`.
#include "lab/run/inspect.h"

#include <cstdint>
#include <iostream>
#include <stdexcept>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/data/problem_set.h"
#include "lab/files/printable.h"

namespace pion::apps {

int inspect(const Invocation& invocation) {
  CLI::App app(
      "Shows which rule every parameter of a model would take, and the matrices' "
      "spectra; of a file of problems its sizes and first problems.",
      "pion inspect");
  std::string model, config, preset;
  bool spectra = false;
  std::int64_t samples = 2;
  app.add_option(
         "MODEL", model,
         "a .safetensors file, an index .json of shards, a directory with one, or a "
         "file of `python -m pion.prepare`")
      ->required();
  app.add_option("--config", config,
                 "config.json with the head counts [the one beside the model]");
  app.add_option("--preset", preset, "routing preset, see `pion optimizers`");
  app.add_flag(
      "--spectra", spectra,
      "singular values: largest, ranks, and what Pion's default cutoff would pass");
  const auto* shown =
      app.add_option("--samples", samples, "problems to show of each split [2]");
  if (parse(app, invocation.words, nullptr)) return kSuccess;
  if (samples < 0)
    throw std::invalid_argument("--samples must be at least 0, got " +
                                std::to_string(samples));
  if (lab::is_problem_file(model)) {
    if (spectra || !config.empty() || !preset.empty())
      throw std::invalid_argument(
          "pion inspect: --config, --preset and --spectra are for models; " + model +
          " holds problems");
    std::cout << lab::printable(
        lab::describe_problem_set(*lab::open_problem_set(model), samples));
    return kSuccess;
  }
  if (shown->count() > 0)
    throw std::invalid_argument("pion inspect: --samples is for files of problems; " +
                                model + " is none");
  std::cout << lab::printable(lab::inspect(
      {.model = model, .config = config, .preset = preset, .spectra = spectra}));
  return kSuccess;
}

}  // namespace pion::apps
