// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lab/run/task.h"
#include "lab/tasks/language_evaluation.h"
#include "lab/tasks/language_setup.h"

namespace pion::lab {

struct SftOptions {
  std::int64_t updates = 0;             // > 0, or 0: as many as `epochs` take
  double epochs = 1.0;                  // passes over the training problems
  std::int64_t batch_size = 96;         // problems an update
  std::int64_t micro_batch_tokens = 0;  // prompts and solutions in one pass; 0: the batch
  double max_grad_norm = 1.0;           // global; 0: not clipped
  std::string verifier;                 // of evaluations; "": the problems' own
  std::uint64_t seed = 1;               // of the order of problems
};

// Supervised fine-tuning: maximizes the likelihood of worked solutions, prompts given.
//
//   loss = -(1 / N) sum over the batch's N solution tokens of log pi(token | before)
class SftTask : public Task {
 public:
  // Throws std::invalid_argument: an option out of range, a problem without a solution or
  // longer than the context (of the first 100,000), what set_up_language throws.
  SftTask(const SftOptions& options, LanguageSetup setup,
          const EvaluationOptions& evaluation, const ProblemChoice& problems);

  torch::nn::Module& model() override { return *setup_.model; }
  std::int64_t updates() const override { return updates_; }
  AttentionShape attention_shape() const override {
    return attention_shape_of(setup_.model->config());
  }

  // loss, gradient_norm (before clipping), tokens, tokens_per_second, epoch, examples.
  Json update(std::int64_t index, Optimizer& optimizer) override;
  // Greedy answers, retention and held_out_loss; see LanguageEvaluation.
  Json evaluate() override;
  void export_model(const std::filesystem::path& folder) override {
    export_language_model(folder, setup_);
  }
  void save(TensorMap& tensors, Json& state) const override;
  void load(const TensorMap& tensors, const Json& state) override;

 private:
  std::vector<Problem> next_batch();
  void check_problem(const Problem& problem, std::int64_t index) const;

  SftOptions options_;
  LanguageSetup setup_;
  Json began_with_;  // see setup_digest
  std::unique_ptr<Verifier> verifier_;
  LanguageEvaluation evaluation_;
  std::vector<torch::Tensor> parameters_;
  std::int64_t updates_ = 0;
  std::int64_t drawn_ = 0;  // problems since the start
};

TaskInfo sft_info();

}  // namespace pion::lab
