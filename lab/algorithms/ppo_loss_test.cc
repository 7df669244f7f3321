// SPDX-License-Identifier: Apache-2.0
// Advantages and losses against the formulas of ppo.h in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "lab/algorithms/ppo.h"

namespace pion::lab {
namespace {

using torch::Tensor;

Tensor row_of(std::vector<float> values) { return torch::tensor(values); }
Tensor column(std::vector<float> values) { return torch::tensor(values).unsqueeze(1); }
double at(const Tensor& x, std::int64_t i) { return x.flatten()[i].item<double>(); }

// ---------------------------------------------------------------------------- advantages

TEST(Advantages, HandCaseWithAnEndInside) {
  const Tensor a = advantages(column({1, 0, 2, 1}), column({.5, .4, .3, .2}),
                              column({0, 1, 0, 0}), row_of({.6}), 0.9, 0.8);
  const double expected[] = {0.572, -0.4, 2.8448, 1.34};
  // inputs below 3 rounded to float, result rounded once more: 4 terms * 3 * 2^-24
  for (int t = 0; t < 4; ++t) EXPECT_NEAR(at(a, t), expected[t], 12 * 0x1p-24) << t;
}

// The sum over future residuals, in double, without the recursion.
double advantage(const std::vector<double>& r, const std::vector<double>& v,
                 const std::vector<double>& done, std::size_t t, double gamma,
                 double lambda) {
  double sum = 0, weight = 1;
  for (std::size_t k = t; k < r.size(); ++k) {
    sum += weight * (r[k] + (done[k] != 0 ? 0 : gamma * v[k + 1]) - v[k]);
    if (done[k] != 0) break;
    weight *= gamma * lambda;
  }
  return sum;
}

TEST(Advantages, AgreeWithTheSumOverFutureResiduals) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (const double lambda : {0.0, 0.7, 1.0}) {
    const std::int64_t steps = 23, n = 5;
    const double gamma = 0.9;
    Tensor r = torch::empty({steps, n}), v = torch::empty({steps + 1, n}),
           done = torch::empty({steps, n});
    for (float* x = r.data_ptr<float>(); x < r.data_ptr<float>() + r.numel(); ++x)
      *x = normal(generator);
    for (float* x = v.data_ptr<float>(); x < v.data_ptr<float>() + v.numel(); ++x)
      *x = normal(generator);
    for (float* x = done.data_ptr<float>(); x < done.data_ptr<float>() + done.numel();
         ++x) {
      *x = generator() % 6 == 0;
    }
    const Tensor a = advantages(r, v.narrow(0, 0, steps), done, v[steps], gamma, lambda);
    for (std::int64_t e = 0; e < n; ++e) {
      std::vector<double> re, ve, de;
      for (std::int64_t t = 0; t < steps; ++t) re.push_back(r[t][e].item<double>());
      for (std::int64_t t = 0; t <= steps; ++t) ve.push_back(v[t][e].item<double>());
      for (std::int64_t t = 0; t < steps; ++t) de.push_back(done[t][e].item<double>());
      for (std::int64_t t = 0; t < steps; ++t) {
        const double expected = advantage(re, ve, de, t, gamma, lambda);
        // double inside; one rounding to float of a number below 32
        EXPECT_NEAR(a[t][e].item<double>(), expected, 32 * 0x1p-24) << t << " " << lambda;
      }
    }
  }
}

// ---------------------------------------------------------------------------------- loss

struct LossCase {
  PolicyOutput output;
  PpoBatch batch;
};

LossCase random_case(std::int64_t n, std::int64_t actions) {
  torch::manual_seed(11);
  LossCase c;
  c.output = {torch::randn({n, actions}).requires_grad_(),
              torch::randn({n}).requires_grad_()};
  c.batch.actions = torch::randint(actions, {n}, torch::kInt64);
  c.batch.log_probs = torch::randn({n, actions})
                          .log_softmax(-1)
                          .gather(-1, c.batch.actions.unsqueeze(-1))
                          .squeeze(-1);
  c.batch.values = torch::randn({n});
  c.batch.advantages = torch::randn({n}) + 0.5;
  c.batch.targets = torch::randn({n});
  return c;
}

struct Reference {
  double policy = 0, value = 0, entropy = 0, kl = 0, clip_fraction = 0;
};

// The header's formulas, sample by sample in double.
Reference reference(const LossCase& c, const PpoOptions& o) {
  const std::int64_t n = c.batch.actions.size(0), actions = c.output.logits.size(1);
  double mean = 0, square = 0;
  for (std::int64_t i = 0; i < n; ++i) mean += at(c.batch.advantages, i) / n;
  for (std::int64_t i = 0; i < n; ++i)
    square += std::pow(at(c.batch.advantages, i) - mean, 2) / n;
  Reference sum;
  for (std::int64_t i = 0; i < n; ++i) {
    double total = 0, a = at(c.batch.advantages, i);
    if (o.normalize_advantages) a = (a - mean) / (std::sqrt(square) + 1e-8);
    std::vector<double> p;
    for (std::int64_t k = 0; k < actions; ++k)
      p.push_back(std::exp(at(c.output.logits[i], k)));
    for (const double x : p) total += x;
    for (double& x : p) x /= total, sum.entropy -= x * std::log(x) / n;
    const auto action = static_cast<std::size_t>(c.batch.actions[i].item<std::int64_t>());
    const double log_ratio = std::log(p[action]) - at(c.batch.log_probs, i),
                 rho = std::exp(log_ratio);
    const double clipped = std::min(std::max(rho, 1 - o.clip), 1 + o.clip);
    sum.policy -= std::min(rho * a, clipped * a) / n;
    sum.kl += (rho - 1 - log_ratio) / n;
    sum.clip_fraction += (std::abs(rho - 1) > o.clip) / double(n);
    const double v = at(c.output.value, i), old = at(c.batch.values, i),
                 target = at(c.batch.targets, i);
    const double near = old + std::min(std::max(v - old, -o.clip), o.clip);
    const double plain = std::pow(v - target, 2), limited = std::pow(near - target, 2);
    sum.value += 0.5 * (o.clip_value ? std::max(plain, limited) : plain) / n;
  }
  return sum;
}

TEST(PpoLoss, AgreesWithTheFormulasInDouble) {
  const LossCase c = random_case(64, 4);
  for (const bool clip_value : {true, false}) {
    for (const bool normalize : {true, false}) {
      const PpoOptions o{.clip = 0.3,
                         .clip_value = clip_value,
                         .normalize_advantages = normalize,
                         .value_coefficient = 0.7,
                         .entropy_coefficient = 0.05};
      const PpoLoss loss = ppo_loss(c.output, c.batch, o);
      const Reference expected = reference(c, o);
      // about 40 dependent f32 roundings a sample, ratios and squares below 100, means of
      // 64
      const double tolerance = 40 * 0x1p-24 * 100;
      EXPECT_NEAR(loss.policy.item<double>(), expected.policy, tolerance);
      EXPECT_NEAR(loss.value.item<double>(), expected.value, tolerance);
      EXPECT_NEAR(loss.entropy.item<double>(), expected.entropy, tolerance);
      EXPECT_NEAR(loss.approx_kl.item<double>(), expected.kl, tolerance);
      EXPECT_EQ(loss.clip_fraction.item<double>(), expected.clip_fraction);
      EXPECT_NEAR(loss.total.item<double>(),
                  expected.policy + 0.7 * expected.value - 0.05 * expected.entropy,
                  3 * tolerance);
    }
  }
  const PpoOptions clipped{.clip_value = true}, plain{.clip_value = false};
  EXPECT_GT(reference(c, clipped).value, reference(c, plain).value)
      << "the case never clips";
}

TEST(PpoLoss, AClippedSampleHasNoPolicyGradient) {
  for (const double a : {1.0, -1.0}) {
    LossCase c = random_case(1, 2);
    c.output.logits = torch::tensor({{2.0f, 0.0f}}).requires_grad_();
    c.batch.actions = torch::zeros({1}, torch::kInt64);
    const double log_p = -std::log(1 + std::exp(-2.0));
    // ratio e or 1/e
    c.batch.log_probs = torch::full({1}, a > 0 ? log_p - 1 : log_p + 1);
    c.batch.advantages = torch::full({1}, a);
    const PpoOptions o{
        .normalize_advantages = false, .value_coefficient = 0, .entropy_coefficient = 0};
    ppo_loss(c.output, c.batch, o).total.backward();
    EXPECT_EQ(c.output.logits.grad().abs().max().item<double>(), 0.0) << a;
  }
}

TEST(PpoLoss, EqualAdvantagesGiveNoPolicyGradientAtAll) {
  LossCase c = random_case(1000, 4);
  c.batch.advantages = torch::full({1000}, 0.1f);
  const PpoOptions o{.value_coefficient = 0, .entropy_coefficient = 0};
  ppo_loss(c.output, c.batch, o).total.backward();
  EXPECT_EQ(c.output.logits.grad().abs().max().item<double>(), 0.0);
}

}  // namespace
}  // namespace pion::lab
