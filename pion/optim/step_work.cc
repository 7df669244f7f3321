// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/step_work.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "pion/optim/gradient_scan.h"
#include "pion/spectral/flush_denormals.h"

namespace pion {
namespace {

// Calls f.template operator()<T, G>() with the types of the work and of the gradient.
template <class F>
auto with_types(const ParameterUpdate& update, F f) {
  const ElementType gradient = update.gradient_type;
  if (update.weight_type == ElementType::kF64) {
    if (gradient == ElementType::kF64) return f.template operator()<double, double>();
    return gradient == ElementType::kF32 ? f.template operator()<double, float>()
                                         : f.template operator()<double, bfloat16>();
  }
  return gradient == ElementType::kF32 ? f.template operator()<float, float>()
                                       : f.template operator()<float, bfloat16>();
}

template <class G>
GradientRun<G> gradient_run(const ParameterUpdate& update, std::size_t first,
                            bool zero_nonfinite) {
  return {static_cast<const G*>(update.gradient) + first, update.maximize,
          zero_nonfinite};
}

template <class T>
ElementwiseRun<T> state_run(const ParameterUpdate& update, bool adamw) {
  return {static_cast<T*>(update.weight),
          static_cast<T*>(adamw ? update.exp_avg : update.momentum),
          static_cast<T*>(update.exp_avg_sq)};
}

// n entries of a bf16 weight in f32: the master copy, or `widened`.
float* widen(const ParameterUpdate& update, std::size_t first, std::size_t n,
             std::vector<float>& widened) {
  const bfloat16* weight = static_cast<const bfloat16*>(update.weight) + first;
  if (update.low_precision != LowPrecision::kMasterCopy) {
    if (widened.size() < n) widened.resize(n);
    std::copy(weight, weight + n, widened.begin());
    return widened.data();
  }
  float* master = update.master + first;
  // where somebody else has written the weight since, the weight counts
  for (std::size_t i = 0; i < n; ++i) {
    const bool same = bfloat16(master[i]).bits == weight[i].bits;
    master[i] = same ? master[i] : static_cast<float>(weight[i]);
  }
  return master;
}

void round_back(const ParameterUpdate& update, std::size_t first, std::size_t n,
                const float* wide) {
  const std::span<bfloat16> weight(static_cast<bfloat16*>(update.weight) + first, n);
  if (update.low_precision == LowPrecision::kStochastic) {
    round_stochastically({wide, n}, weight, update.seed, first);
  } else {
    round_to_nearest({wide, n}, weight);
  }
}

template <class G>
double step_bfloat16_chunk(const ParameterUpdate& update,
                           const ElementwiseScalars& scalars, Chunk chunk,
                           bool zero_nonfinite, StepWorkspaces::Thread& thread) {
  const ElementwiseRun<float> whole = state_run<float>(update, scalars.adamw);
  double squares = 0;
  for (std::size_t done = 0; done < chunk.size; done += kWidePiece) {
    const std::size_t first = chunk.first + done,
                      n = std::min(kWidePiece, chunk.size - done);
    float* wide = widen(update, first, n, thread.weight);
    ElementwiseRun<float> run = whole.from(first);
    run.weight = wide;
    squares += step_run<float, G>(scalars, run,
                                  gradient_run<G>(update, first, zero_nonfinite), n);
    round_back(update, first, n, wide);
  }
  return squares;
}

// The gradient of one matrix, negated where the rule steps along it.
template <class T, class G>
const T* negated(const G* gradient, std::size_t n, std::vector<T>& memory) {
  if (memory.size() < n) memory.resize(n);
  for (std::size_t i = 0; i < n; ++i) memory[i] = -gradient_entry<T>(gradient[i]);
  return memory.data();
}

template <class T, class G>
UpdateStatistics matrix_step_of(const ParameterUpdate& update, std::size_t first,
                                T* weight, StepWorkspaces::Thread& thread) {
  const std::int64_t rows = update.rows, cols = update.cols;
  const G* gradient = static_cast<const G*>(update.gradient) + first;
  T* momentum = static_cast<T*>(update.momentum) + first;
  if (update.maximize) {
    const T* uphill = nullptr;
    const auto n = static_cast<std::size_t>(rows * cols);
    if constexpr (std::is_same_v<T, double>) {
      uphill = negated(gradient, n, thread.gradient_f64);
    } else {
      uphill = negated(gradient, n, thread.gradient);
    }
    return matrix_step<T, T>(view(weight, rows, cols), view(uphill, rows, cols),
                             view(momentum, rows, cols), *update.rule, update.layout,
                             thread.matrix);
  }
  return matrix_step<T, G>(view(weight, rows, cols), view(gradient, rows, cols),
                           view(momentum, rows, cols), *update.rule, update.layout,
                           thread.matrix);
}

}  // namespace

RunScan scan_chunk(const ParameterUpdate& update, std::size_t piece, std::size_t index,
                   bool zero_nonfinite) {
  const FlushDenormals flush;
  const std::size_t chunks = chunk_count(piece);
  const Chunk chunk = chunk_of(index % chunks, piece);
  const std::size_t first = index / chunks * piece + chunk.first;
  return with_types(update, [&]<class T, class G>() {
    return scan_run<T, G>(gradient_run<G>(update, first, zero_nonfinite), chunk.size);
  });
}

bool momentum_chunk_is_finite(const ParameterUpdate& update, std::size_t entries,
                              std::size_t index) {
  const Chunk chunk = chunk_of(index, entries);
  return with_types(update, [&]<class T, class G>() {
    const T* momentum = static_cast<const T*>(update.momentum) + chunk.first;
    return scan_run<T, T>({momentum}, chunk.size).finite;
  });
}

bool gradient_is_zero(const ParameterUpdate& update, std::size_t matrix,
                      bool zero_nonfinite) {
  const auto n = static_cast<std::size_t>(update.rows * update.cols);
  return with_types(update, [&]<class T, class G>() {
    const G* gradient = static_cast<const G*>(update.gradient) + matrix * n;
    return std::all_of(gradient, gradient + n, [&](G g) {
      return (zero_nonfinite ? finite_or_zero<T>(g) : gradient_entry<T>(g)) == 0;
    });
  });
}

void raise_nonfinite(const ParameterUpdate& update) {
  const char* where = std::holds_alternative<AdamWRule>(*update.rule) ? "adamw_step"
                      : std::holds_alternative<SgdRule>(*update.rule) ? "sgd_step"
                                                                      : "matrix_step";
  with_types(update, [&]<class T, class G>() {
    for (std::int64_t k = 0; k < update.count; ++k) {
      const G* matrix =
          static_cast<const G*>(update.gradient) + k * update.rows * update.cols;
      scan_gradient<T, G>(view(matrix, update.rows, update.cols), NonFinite::kRaise,
                          where);
    }
  });
}

double step_chunk(const ParameterUpdate& update, const ElementwiseScalars& scalars,
                  std::size_t entries, std::size_t index, bool zero_nonfinite,
                  StepWorkspaces::Thread& thread) {
  // the state of entries without gradient decays to denormals, which are slow
  const FlushDenormals flush;
  const Chunk chunk = chunk_of(index, entries);
  return with_types(update, [&]<class T, class G>() {
    if constexpr (std::is_same_v<T, float>) {
      if (update.weight_type == ElementType::kBf16) {
        return step_bfloat16_chunk<G>(update, scalars, chunk, zero_nonfinite, thread);
      }
    }
    return step_run<T, G>(scalars, state_run<T>(update, scalars.adamw).from(chunk.first),
                          gradient_run<G>(update, chunk.first, zero_nonfinite),
                          chunk.size);
  });
}

UpdateStatistics step_whole(const ParameterUpdate& update,
                            const ElementwiseScalars& scalars, std::size_t entries,
                            StepWorkspaces::Thread& thread) {
  const std::size_t chunks = chunk_count(entries);
  const auto scan = [&](bool zero_nonfinite) {
    RunScan sum;
    // backwards: the step then begins with what is still in the cache
    for (std::size_t c = chunks; c-- > 0;) {
      sum.add(scan_chunk(update, entries, c, zero_nonfinite));
    }
    return sum;
  };
  RunScan found = scan(false);
  const bool clean = found.finite;
  if (!clean) {
    if (nonfinite_policy(*update.rule) == NonFinite::kSkip) return {.skipped = true};
    found = scan(true);
  }
  double squares = 0;
  for (std::size_t c = 0; c < chunks; ++c) {
    squares += step_chunk(update, scalars, entries, c, !clean, thread);
  }
  return {.gradient_norm = std::sqrt(found.squares),
          .update_rms = std::sqrt(squares / static_cast<double>(entries))};
}

UpdateStatistics step_matrix(const ParameterUpdate& update, std::size_t matrix,
                             StepWorkspaces::Thread& thread) {
  const auto n = static_cast<std::size_t>(update.rows * update.cols);
  const std::size_t first = matrix * n;
  thread.matrix.momentum_is_finite = update.momentum_is_finite;
  return with_types(update, [&]<class T, class G>() {
    if constexpr (std::is_same_v<T, float>) {
      if (update.weight_type == ElementType::kBf16) {
        float* wide = widen(update, first, n, thread.weight);
        const UpdateStatistics result =
            matrix_step_of<float, G>(update, first, wide, thread);
        if (!result.skipped) round_back(update, first, n, wide);
        return result;
      }
    }
    return matrix_step_of<T, G>(update, first, static_cast<T*>(update.weight) + first,
                                thread);
  });
}

}  // namespace pion
