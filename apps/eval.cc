// SPDX-License-Identifier: Apache-2.0
// `pion eval RUN`.
#include <iostream>

#include "apps/arguments.h"
#include "apps/subcommands.h"
#include "lab/files/json_text.h"
#include "lab/files/printable.h"
#include "lab/run/flags.h"
#include "lab/run/named_verifiers.h"
#include "lab/run/run.h"
#include "lab/run/run_directory.h"

namespace pion::apps {

int eval(const Invocation& invocation) {
  CLI::App app("Evaluates the newest checkpoint of a run, greedily, and prints JSON.",
               "pion eval");
  app.footer("Recipe keys of the evaluation are flags, as --episodes 64.");
  std::string run;
  app.add_option("RUN", run, "run directory")->required();
  add_unconfined(app);
  lab::TextPairs flags;
  if (parse(app, invocation.words, &flags)) return kSuccess;
  const std::filesystem::path file = lab::RunPaths{run}.recipe();
  if (!std::filesystem::is_regular_file(file))
    throw std::invalid_argument(run + " is no run directory: it has no recipe.toml");
  const lab::Recipe recipe = lab::Recipe::load(file.string());
  const lab::TextPairs resolved = lab::resolve_flags(recipe, flags, option_names(app));
  const lab::Json result = lab::evaluate_run(run, resolved, lab::named_by_user(flags));
  std::cout << lab::printable(lab::json_text(result, 2));
  return kSuccess;
}

}  // namespace pion::apps
