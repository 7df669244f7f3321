// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lab/algorithms/policy_gradient/estimator.h"
#include "lab/run/task.h"
#include "lab/tasks/language_evaluation.h"
#include "lab/tasks/language_setup.h"
#include "lab/tasks/rlvr_options.h"
#include "lab/tasks/rlvr_rollout.h"

namespace pion::lab {

// Reinforcement learning with verifiable rewards. One update:
//
//   rollout     prompts x samples answers at a temperature, each judged
//   advantages  of the whole rollout; see Estimator
//   steps       epochs x minibatches of the rollout's answers in random order
//
// Old log-probabilities are generation's, which runs the same weights: they differ from
// the training code's by rounding alone. A step none of whose answers has an advantage is
// not taken: weights and momentum stay bit for bit. Answers without one are not computed:
// they add 0 to the loss, whose denominators count them.
class RlvrTask : public Task {
 public:
  // Throws std::invalid_argument.
  RlvrTask(const RlvrOptions& options, LanguageSetup setup,
           const EvaluationOptions& evaluation, const ProblemChoice& problems);

  torch::nn::Module& model() override { return *setup_.model; }
  std::int64_t updates() const override { return options_.updates; }
  AttentionShape attention_shape() const override {
    return attention_shape_of(setup_.model->config());
  }
  Json update(std::int64_t index, Optimizer& optimizer) override;
  Json evaluate() override;
  Json sample() override;
  void export_model(const std::filesystem::path& folder) override {
    export_language_model(folder, setup_);
  }
  void correct_statistics(std::vector<ParameterStatistics>& statistics) const override;
  void save(TensorMap& tensors, Json& state) const override;
  void load(const TensorMap& tensors, const Json& state) override;

 private:
  struct Progress;  // of one update

  void learn(GatheredRollout& gathered, Optimizer& optimizer, Progress& progress);
  void step(const GatheredRollout& gathered, const PreparedBatch& batch,
            const torch::Tensor& minibatch, Optimizer& optimizer, Progress& progress);
  void apply(Optimizer& optimizer, Progress& progress);
  // Log-probabilities that the loss compares with.
  void complete(GatheredRollout& gathered);
  // Adds the gradient of `rows`' share of the minibatch's loss.
  void backward(const GatheredRollout& gathered, const PreparedBatch& batch,
                const torch::Tensor& rows, const torch::Tensor& minibatch, Metrics& sums);
  // Of the hidden matrices, by the present policy; weights and optimizer stay.
  std::vector<torch::Tensor> rollout_gradient(const std::function<Problem()>& next,
                                              at::Generator& generator);
  Json band_signal();
  double kl_to_start(const GatheredRollout& gathered);
  // Says once what keeps updates from training anything.
  void look_for_signal(const GatheredRollout& gathered, const Progress& progress);
  torch::Tensor logprobs(CausalLm& model, const Generation& generation);
  Json metrics(const GatheredRollout& gathered, const Progress& progress) const;

  RlvrOptions options_;
  LanguageSetup setup_;
  Json began_with_;                  // see setup_digest
  std::shared_ptr<CausalLm> start_;  // frozen: reference, and the answers before
  std::unique_ptr<Verifier> verifier_;
  LanguageEvaluation evaluation_;
  Estimator estimator_;
  std::vector<torch::Tensor> parameters_;
  std::vector<std::string> hidden_names_;  // matrices between embedding and head
  std::vector<torch::Tensor> hidden_;
  std::map<std::string, double> update_rms_;  // of the last step's hidden matrices
  at::Generator generator_;
  std::int64_t drawn_ = 0, answers_ = 0;  // problems and answers since the start
  std::int64_t idle_updates_ = 0;         // the last ones in a row, without a step
  bool said_graded_ = false, said_idle_ = false;
};

TaskInfo rlvr_info();

}  // namespace pion::lab
