// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/elementwise_step.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "pion/kernels/elementwise.h"
#include "pion/optim/gradient_scan.h"
#include "pion/spectral/flush_denormals.h"

namespace pion {
namespace {

// What the kernels are written for; the other types take the plain loops below.
template <class T, class G>
constexpr bool kHasKernel =
    std::is_same_v<T, float> && (std::is_same_v<G, float> || std::is_same_v<G, bfloat16>);

template <class G>
GradientEntries kernel_entries(const GradientRun<G>& gradient) {
  GradientEntries entries{.negated = gradient.negated,
                          .zero_nonfinite = gradient.zero_nonfinite};
  if constexpr (std::is_same_v<G, bfloat16>) {
    entries.bf16 = &gradient.data->bits;
  } else {
    entries.f32 = gradient.data;
  }
  return entries;
}

template <class T, class G>
T entry_of(const GradientRun<G>& gradient, std::size_t i) {
  const T g = gradient.zero_nonfinite ? finite_or_zero<T>(gradient.data[i])
                                      : gradient_entry<T>(gradient.data[i]);
  return gradient.negated ? -g : g;
}

// Moves the weight by update(g, i), of which lr is a factor.
template <class T, class G, class Update>
double step_entries(const ElementwiseScalars& scalars, T* weight,
                    const GradientRun<G>& gradient, std::size_t n, Update update) {
  const T decay = static_cast<T>(scalars.decay);
  double squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const T u = update(entry_of<T>(gradient, i), i);
    squares += static_cast<double>(u) * static_cast<double>(u);
    if (scalars.moves) weight[i] = weight[i] * decay - u;
  }
  return squares;
}

template <class T, class G>
double adamw_entries(const ElementwiseScalars& s, const ElementwiseRun<T>& run,
                     const GradientRun<G>& gradient, std::size_t n) {
  const T b1 = static_cast<T>(s.beta1), c1 = static_cast<T>(1.0 - s.beta1);
  const T b2 = static_cast<T>(s.beta2), c2 = static_cast<T>(1.0 - s.beta2);
  const T eps = static_cast<T>(s.eps), step_size = static_cast<T>(s.step_size);
  const T inverse_correction = static_cast<T>(s.inverse_correction);
  return step_entries(s, run.weight, gradient, n, [&](T g, std::size_t i) {
    const T m = run.state[i] = b1 * run.state[i] + c1 * g;
    const T v = run.second_state[i] = b2 * run.second_state[i] + c2 * g * g;
    return step_size * m / (std::sqrt(v) * inverse_correction + eps);
  });
}

template <class T, class G>
double sgd_entries(const ElementwiseScalars& s, const ElementwiseRun<T>& run,
                   const GradientRun<G>& gradient, std::size_t n) {
  const T lr = static_cast<T>(s.lr), mu = static_cast<T>(s.momentum);
  const T share = static_cast<T>(s.share);
  return step_entries(s, run.weight, gradient, n, [&](T g, std::size_t i) {
    if (mu == 0) return lr * g;
    T& b = run.state[i];
    b = s.first ? g : mu * b + share * g;
    return lr * (s.nesterov ? g + mu * b : b);
  });
}

}  // namespace

ElementwiseScalars::ElementwiseScalars(const AdamWRule& rule, std::int64_t step)
    : adamw(true),
      moves(rule.lr != 0),
      decay(1.0 - rule.lr * rule.weight_decay),
      beta1(rule.beta1),
      beta2(rule.beta2),
      eps(rule.eps) {
  const double t = static_cast<double>(step);
  step_size = rule.lr / (1.0 - std::pow(rule.beta1, t));
  inverse_correction = 1.0 / std::sqrt(1.0 - std::pow(rule.beta2, t));
}

ElementwiseScalars::ElementwiseScalars(const SgdRule& rule, std::int64_t step)
    : adamw(false),
      moves(rule.lr != 0),
      decay(1.0 - rule.lr * rule.weight_decay),
      lr(rule.lr),
      momentum(rule.momentum),
      share(1.0 - rule.dampening),
      first(step == 1),
      nesterov(rule.nesterov) {}

template <class T, class G>
RunScan scan_run(const GradientRun<G>& gradient, std::size_t n) {
  if constexpr (kHasKernel<T, G>) {
    const double squares = gradient_squares(kernel_entries(gradient), n);
    return {squares, std::isfinite(squares)};
  } else {
    RunScan scan;
    for (std::size_t i = 0; i < n; ++i) {
      const T g = entry_of<T>(gradient, i);
      scan.finite &= std::isfinite(g);
      scan.squares += static_cast<double>(g) * static_cast<double>(g);
    }
    return scan;
  }
}

template <class T, class G>
double step_run(const ElementwiseScalars& s, const ElementwiseRun<T>& run,
                const GradientRun<G>& gradient, std::size_t n) {
  if constexpr (kHasKernel<T, G>) {
    const auto number = [](double x) { return static_cast<float>(x); };
    if (s.adamw) {
      return adamw({.n = n,
                    .weight = run.weight,
                    .gradient = kernel_entries(gradient),
                    .exp_avg = run.state,
                    .exp_avg_sq = run.second_state,
                    .beta1 = number(s.beta1),
                    .share1 = number(1.0 - s.beta1),
                    .beta2 = number(s.beta2),
                    .share2 = number(1.0 - s.beta2),
                    .step_size = number(s.step_size),
                    .inverse_correction = number(s.inverse_correction),
                    .eps = number(s.eps),
                    .decay = number(s.decay),
                    .moves = s.moves});
    }
    return sgd({.n = n,
                .weight = run.weight,
                .gradient = kernel_entries(gradient),
                .momentum = s.momentum > 0 ? run.state : nullptr,
                .mu = number(s.momentum),
                .share = number(s.share),
                .lr = number(s.lr),
                .decay = number(s.decay),
                .first = s.first,
                .nesterov = s.nesterov,
                .moves = s.moves});
  } else {
    return s.adamw ? adamw_entries(s, run, gradient, n)
                   : sgd_entries(s, run, gradient, n);
  }
}

template <class T, class G>
UpdateStatistics elementwise_step(const ElementwiseScalars& scalars, NonFinite policy,
                                  const ElementwiseRun<T>& run, const G* gradient,
                                  std::size_t n, const char* where) {
  // the state of entries without gradient decays to denormals, which are slow
  const FlushDenormals flush;
  if (n == 0) return {};
  GradientRun<G> entries{gradient};
  const auto piece = [&](Chunk chunk) {
    return GradientRun<G>{entries.data + chunk.first, entries.negated,
                          entries.zero_nonfinite};
  };
  const auto scan = [&] {
    RunScan sum;
    for (std::size_t c = chunk_count(n); c-- > 0;) {  // what is met first is met last
      const Chunk chunk = chunk_of(c, n);
      sum.add(scan_run<T, G>(piece(chunk), chunk.size));
    }
    return sum;
  };
  RunScan found = scan();
  if (!found.finite) {
    const auto all = view(gradient, 1, static_cast<std::int64_t>(n));
    if (scan_gradient<T, G>(all, policy, where).skip) return {.skipped = true};
    entries.zero_nonfinite = true;
    found = scan();
  }
  double squares = 0;
  for (std::size_t c = 0; c < chunk_count(n); ++c) {
    const Chunk chunk = chunk_of(c, n);
    squares += step_run<T, G>(scalars, run.from(chunk.first), piece(chunk), chunk.size);
  }
  return {.gradient_norm = std::sqrt(found.squares),
          .update_rms = std::sqrt(squares / static_cast<double>(n))};
}

void check_size(const char* where, const char* what, std::size_t size,
                std::size_t wanted) {
  if (size != wanted) {
    throw std::invalid_argument(std::string(where) + ": " + what +
                                " must have the size of weight, " +
                                std::to_string(wanted) + ", got " + std::to_string(size));
  }
}

void check_step(const char* where, std::int64_t step) {
  if (step < 1) {
    throw std::invalid_argument(std::string(where) + ": step must be >= 1, got " +
                                std::to_string(step));
  }
}

#define PION_ELEMENTWISE(T, G)                                                           \
  template RunScan scan_run<T, G>(const GradientRun<G>&, std::size_t);                   \
  template double step_run<T, G>(const ElementwiseScalars&, const ElementwiseRun<T>&,    \
                                 const GradientRun<G>&, std::size_t);                    \
  template UpdateStatistics elementwise_step<T, G>(const ElementwiseScalars&, NonFinite, \
                                                   const ElementwiseRun<T>&, const G*,   \
                                                   std::size_t, const char*);
PION_ELEMENTWISE(float, float)
PION_ELEMENTWISE(float, double)
PION_ELEMENTWISE(float, bfloat16)
PION_ELEMENTWISE(double, float)
PION_ELEMENTWISE(double, double)
PION_ELEMENTWISE(double, bfloat16)
#undef PION_ELEMENTWISE

}  // namespace pion
