// SPDX-License-Identifier: Apache-2.0
// The signal in a rollout's gradient, by singular bands: rl.spectra.
#include "lab/data/permutation.h"
#include "lab/tasks/control_task.h"
#include "lab/tasks/rlvr.h"
#include "lab/tasks/singular_bands.h"

namespace pion::lab {

using torch::Tensor;

namespace {

constexpr std::uint64_t kSpectraSeed = 0x5eed0003;  // of its problems and answers
// Of the gradient and of its judge: about what momentum 0.9 holds at two steps a rollout.
constexpr int kRollouts = 4;

}  // namespace

std::vector<Tensor> RlvrTask::rollout_gradient(const std::function<Problem()>& next,
                                               at::Generator& generator) {
  GatheredRollout gathered = gather_rollout(*setup_.model, *setup_.problems, *verifier_,
                                            options_, next, generator);
  setup_.model->zero_grad(/*set_to_none=*/true);
  if (gathered.rows() > 0) {
    complete(gathered);
    Estimator estimator = estimator_;  // a copy: preparing moves the baseline
    const PreparedBatch batch = estimator.prepare(gathered.rollout);
    const Tensor all = torch::arange(gathered.rows());
    Metrics unused;
    if (!batch.no_signal)
      backward(gathered, batch, all.masked_select(batch.signal), all, unused);
  }
  std::vector<Tensor> gradients;
  for (const Tensor& matrix : hidden_)
    gradients.push_back(matrix.grad().defined()
                            ? matrix.grad().to(torch::kDouble)
                            : torch::zeros_like(matrix, torch::kDouble));
  setup_.model->zero_grad(/*set_to_none=*/true);
  return gradients;
}

Json RlvrTask::band_signal() {
  at::Generator generator = seeded_generator(static_cast<std::int64_t>(kSpectraSeed));
  const std::int64_t count = setup_.problems->size(Split::kTrain);
  std::int64_t drawn = 0;
  const auto next = [&] {
    return setup_.problems->problem(Split::kTrain,
                                    shuffled_index(drawn++, count, kSpectraSeed));
  };
  const auto mean_gradient = [&] {
    std::vector<Tensor> sum = rollout_gradient(next, generator);
    for (int more = 1; more < kRollouts; ++more) {
      const std::vector<Tensor> another = rollout_gradient(next, generator);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += another[i];
    }
    for (Tensor& each : sum) each /= kRollouts;
    return sum;
  };
  const std::vector<Tensor> gradients = mean_gradient(), judge = mean_gradient();
  return singular_band_signal(gradients, judge);
}

}  // namespace pion::lab
