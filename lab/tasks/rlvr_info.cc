// SPDX-License-Identifier: Apache-2.0
// What the registry knows of reinforcement learning.
#include <algorithm>
#include <stdexcept>

#include "lab/tasks/rlvr.h"

namespace pion::lab {
namespace {

Schema rlvr_schema() {
  Schema schema;
  for (const Schema& more :
       {rlvr_keys(), model_keys(), problem_keys(), evaluation_keys()})
    schema.insert(schema.end(), more.begin(), more.end());
  return schema;
}

// Equal update sizes are of f32 weights without decay, and of the two rules alone.
void check_unit_rms(const Recipe& r, const CausalLmConfig& config) {
  if (!r.flag("rl.unit_rms")) return;
  const std::string& preset = r.text("optimizer.preset");
  if (!preset.empty())
    throw std::invalid_argument("rl.unit_rms: must be false with optimizer.preset = \"" +
                                preset + "\", which brings its own step sizes");
  if (config.dtype != "float32")
    throw std::invalid_argument("rl.unit_rms: weights must be float32, got " +
                                config.dtype + "; set model.dtype = \"float32\"");
  const auto decay = get_rule_key(r.matrices(), "weight_decay");
  if (decay && std::get<double>(*decay) != 0)
    throw std::invalid_argument(
        "rl.unit_rms: optimizer.matrices.weight_decay must be 0, got " +
        number_text(std::get<double>(*decay)));
}

std::unique_ptr<Task> make_rlvr(const Recipe& r) {
  const RlvrOptions options = rlvr_options(r);
  const ProblemChoice problems = problem_choice(r);
  const EvaluationOptions evaluation = evaluation_options(r);
  LanguageSetup setup =
      set_up_language(model_choice(r), problems,
                      std::max(options.max_new_tokens, evaluation.max_new_tokens));
  check_unit_rms(r, setup.model->config());
  return std::make_unique<RlvrTask>(options, std::move(setup), evaluation, problems);
}

}  // namespace

TaskInfo rlvr_info() {
  using Source = MetricColumn::Source;
  TaskInfo info;
  info.name = "rlvr";
  info.description = "reinforcement learning of a language model with verifiable rewards";
  info.schema = rlvr_schema();
  info.score = "accuracy";
  info.curve = "reward_mean";
  info.progress = "answers";
  info.columns = {
      {"reward_mean", "reward mean", Source::kUpdates},
      {"format_rate", "format rate"},
      {"right_unformatted_rate", "right without form"},
      {"sampled_accuracy", "accuracy at T=1"},
      {"sampled_format_rate", "format at T=1"},
      {"entropy", "entropy"},
      {"kl_to_start", "KL to start"},
      {"retention_accuracy", "retention"},
      {"retention_loss", "retention loss"},
      {"update_rms", "update RMS", Source::kOptimizer},
      {"directions_passed", "directions passed", Source::kOptimizer},
      {"empty_matrices", "empty matrices", Source::kOptimizer},
      {"head_spread", "head spread", Source::kOptimizer},
      {"signal_1", "signal, direction 1"},
      {"signal_2_4", "signal, 2 to 4"},
      {"signal_5_16", "signal, 5 to 16"},
      {"signal_17_64", "signal, 17 to 64"},
      {"signal_65_up", "signal, from 65"},
      {"gradient_norm", "gradient norm", Source::kUpdates},
      {"loss", "loss", Source::kUpdates},
  };
  info.start = start_recipe;
  info.data = [](const Recipe& r) { return problem_file(r); };
  info.make = make_rlvr;
  return info;
}

}  // namespace pion::lab
