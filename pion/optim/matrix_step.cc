// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/matrix_step.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "pion/optim/block_step.h"
#include "pion/optim/elementwise_step.h"
#include "pion/optim/gradient_scan.h"
#include "pion/optim/prepared_map.h"
#include "pion/optim/spectrum_summary.h"
#include "pion/spectral/flush_denormals.h"

namespace pion {
namespace {

constexpr const char* kWhere = "matrix_step";

template <class T>
std::string shape_text(MatrixViewOf<T> x) {
  return "[" + std::to_string(x.rows) + ", " + std::to_string(x.cols) + "]";
}

template <class T>
void check_view(const char* what, MatrixViewOf<T> x) {
  const bool valid = x.rows >= 0 && x.cols >= 0 && (x.rows <= 1 || x.stride >= x.cols) &&
                     (x.data != nullptr || x.rows == 0 || x.cols == 0);
  if (!valid)
    throw std::invalid_argument(
        std::string(kWhere) + ": " + what +
        " must have rows, cols >= 0, stride >= cols and data, got " + shape_text(x) +
        ", stride " + std::to_string(x.stride));
}

template <class T, class X>
void check_shape(const char* what, MatrixViewOf<T> weight, MatrixViewOf<X> x) {
  if (x.rows != weight.rows || x.cols != weight.cols) {
    throw std::invalid_argument(std::string(kWhere) + ": " + what +
                                " must have the shape of weight, " + shape_text(weight) +
                                ", got " + shape_text(x));
  }
  check_view(what, x);
}

template <class T>
MatrixStepWorkspace::Scratch<T>& scratch_of(MatrixStepWorkspace& workspace) {
  if constexpr (std::is_same_v<T, double>) {
    return workspace.f64;
  } else {
    return workspace.f32;
  }
}

// mu M + (1 - mu) G, entry by entry: the new M, and once more the look-ahead of Nesterov.
template <class T>
struct Averaging {
  T mu, share;
  T operator()(T m, T g) const { return mu * m + share * g; }
};

// Calls visit(entry of G in T, i, j); entries that are not finite are 0 unless `clean`.
template <class T, class G, class Visit>
void for_each_entry(MatrixViewOf<const G> gradient, bool clean, Visit visit) {
  for (std::int64_t i = 0; i < gradient.rows; ++i) {
    const G* row = gradient.row(i);
    if (clean) {
      for (std::int64_t j = 0; j < gradient.cols; ++j)
        visit(gradient_entry<T>(row[j]), i, j);
    } else {
      for (std::int64_t j = 0; j < gradient.cols; ++j)
        visit(finite_or_zero<T>(row[j]), i, j);
    }
  }
}

// O_b = map(D_b) for all blocks, neighbours of one shape as one batch. False if an entry
// of D is not finite. Adds to half_pass.
template <class T>
bool map_blocks(MatrixViewOf<T> direction, MatrixViewOf<T> output, const Rule& rule,
                MatrixStepWorkspace& workspace, double& half_pass) {
  auto& scratch = scratch_of<T>(workspace);
  const std::vector<Block>& blocks = workspace.blocks;
  if (workspace.collect_spectrum) workspace.spectrum.assign(blocks.size(), {});
  for (std::size_t first = 0, last = 0; first < blocks.size(); first = last) {
    const Block& shape = blocks[first];
    scratch.input.clear();
    scratch.output.clear();
    for (; last < blocks.size() && blocks[last].rows == shape.rows &&
           blocks[last].cols == shape.cols;
         ++last) {
      const Block& b = blocks[last];
      scratch.input.push_back(direction.block(b.row, b.col, b.rows, b.cols));
      scratch.output.push_back(output.block(b.row, b.col, b.rows, b.cols));
    }
    const auto& prepared = prepared_map(workspace, rule, shape);
    half_pass = std::max(half_pass, prepared.half_pass);
    std::span<SpectrumStatistics> statistics;
    if (workspace.collect_spectrum) {
      statistics = std::span(workspace.spectrum).subspan(first, last - first);
    }
    if (!apply_spectral_map<T>(prepared.map, scratch.input, scratch.output,
                               workspace.spectral, statistics)) {
      return false;
    }
  }
  return true;
}

template <class T>
double squared_norm(MatrixViewOf<const T> x) {
  double squares = 0;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t j = 0; j < x.cols; ++j) {
      squares += static_cast<double>(x(i, j)) * static_cast<double>(x(i, j));
    }
  }
  return squares;
}

// W_b <- (1 - lr weight_decay) W_b - lr s O_b. Returns ||lr s O_b||_F^2.
template <class T>
double move_block(MatrixViewOf<T> weight, MatrixViewOf<const T> output, double squares,
                  const MatrixRule& rule, bool transposed) {
  double scale = transposed ? rule_scale(rule, weight.cols, weight.rows)
                            : rule_scale(rule, weight.rows, weight.cols);
  if (rule.scale == Scale::kUnitRms) {
    const double entries =
        static_cast<double>(weight.rows) * static_cast<double>(weight.cols);
    scale *= std::sqrt(entries) / (std::sqrt(squares) + kUnitRmsFloor);
  }
  const double step = rule.lr * scale;
  if (rule.lr != 0) {
    const T decay = static_cast<T>(1.0 - rule.lr * rule.weight_decay),
            s = static_cast<T>(step);
    for (std::int64_t i = 0; i < weight.rows; ++i) {
      T* w = weight.row(i);
      const T* o = output.row(i);
      for (std::int64_t j = 0; j < weight.cols; ++j) w[j] = decay * w[j] - s * o[j];
    }
  }
  return step * step * squares;
}

template <class T, class G>
const MatrixRule& check_arguments(MatrixViewOf<T> weight, MatrixViewOf<const G> gradient,
                                  MatrixViewOf<T> momentum, const Rule& rule) {
  const MatrixRule* shared = matrix_rule(rule);
  if (shared == nullptr) {
    throw std::invalid_argument(std::string(kWhere) +
                                ": the rule must be one for matrices, got \"" +
                                std::string(rule_name(rule)) + "\"");
  }
  check_rule(rule, kWhere);
  check_view("weight", weight);
  check_shape("gradient", weight, gradient);
  check_shape("momentum", weight, momentum);
  return *shared;
}

// The scan of an f32 step: by chunks from the last to the first, so that sums do not
// depend on who takes them and the step begins with what is in the cache.
template <class G>
GradientScan scan_chunks(MatrixViewOf<const G> gradient, NonFinite policy) {
  const FlushDenormals flush;
  const bool contiguous = gradient.stride == gradient.cols;
  const std::int64_t runs = contiguous ? 1 : gradient.rows;
  const auto size = static_cast<std::size_t>(contiguous ? gradient.rows * gradient.cols
                                                        : gradient.cols);
  RunScan found;
  for (std::int64_t i = runs; i-- > 0;) {
    for (std::size_t c = chunk_count(size); c-- > 0;) {
      const Chunk chunk = chunk_of(c, size);
      found.add(scan_run<float, G>({gradient.row(i) + chunk.first}, chunk.size));
    }
  }
  // the slow scan counts the finite entries, or finds the one to complain of
  if (!found.finite) return scan_gradient<float>(gradient, policy, kWhere);
  return {.norm = std::sqrt(found.squares)};
}

bool all_finite(MatrixView x) {
  for (std::int64_t i = 0; i < x.rows; ++i) {
    if (!scan_run<float, float>({x.row(i)}, static_cast<std::size_t>(x.cols)).finite) {
      return false;
    }
  }
  return true;
}

[[noreturn]] void throw_momentum() {
  throw std::invalid_argument(std::string(kWhere) +
                              ": the momentum must be finite, got NaN or Inf; restart it "
                              "from zeros");
}

// An f32 step under Precision::kFast or kAccurate.
template <class G>
UpdateStatistics blockwise_step(MatrixView weight, MatrixViewOf<const G> gradient,
                                MatrixView momentum, const Rule& rule,
                                const HeadLayout& layout,
                                MatrixStepWorkspace& workspace) {
  const NonFinite policy = matrix_rule(rule)->nonfinite;
  const GradientScan scan = scan_chunks(gradient, policy);
  if (scan.skip) return {.skipped = true};
  if (!workspace.momentum_is_finite && !all_finite(momentum)) {
    if (policy == NonFinite::kSkip) return {.skipped = true};
    throw_momentum();
  }
  const double entries =
      static_cast<double>(weight.rows) * static_cast<double>(weight.cols);
  BlockwiseMatrix matrix{.weight = weight,
                         .momentum = momentum,
                         .rule = &rule,
                         .transposed = layout.transposed,
                         .magnitude = scan.norm / std::sqrt(entries)};
  if (!scan.clean) {  // zeros for what is not finite
    auto& numbers = workspace.clean_gradient;
    numbers.resize(static_cast<std::size_t>(weight.rows * weight.cols));
    for_each_entry<float>(gradient, false, [&](float g, std::int64_t i, std::int64_t j) {
      numbers[static_cast<std::size_t>(i * weight.cols + j)] = g;
    });
    matrix.gradient = view<const float>(numbers.data(), weight.rows, weight.cols);
  } else if constexpr (std::is_same_v<G, bfloat16>) {
    matrix.narrow_gradient = gradient;
  } else {
    matrix.gradient = gradient;
  }
  SerialExecutor here;
  workspace.block_results.clear();
  for (const Block& block : workspace.blocks) {
    workspace.block_results.push_back(step_block(matrix, block, workspace, here));
  }
  const UpdateStatistics update = merge_blocks(workspace.blocks, workspace.block_results,
                                               scan.norm, workspace.collect_spectrum);
  if (update.skipped && policy != NonFinite::kSkip) throw_momentum();
  return update;
}

}  // namespace

template <class T, class G>
UpdateStatistics matrix_step(MatrixViewOf<T> weight, MatrixViewOf<const G> gradient,
                             MatrixViewOf<T> momentum, const Rule& rule,
                             const HeadLayout& layout, MatrixStepWorkspace& workspace) {
  const MatrixRule& shared = check_arguments(weight, gradient, momentum, rule);
  if (weight.rows == 0 || weight.cols == 0) return {};
  fill_head_blocks(layout, weight.rows, weight.cols, workspace.blocks);
  if constexpr (std::is_same_v<T, float> && !std::is_same_v<G, double>) {
    if (steps_by_blocks(rule)) {
      return blockwise_step(weight, gradient, momentum, rule, layout, workspace);
    }
  }
  const GradientScan scan = scan_gradient<T>(gradient, shared.nonfinite, kWhere);
  if (scan.skip) return {.skipped = true};

  // D and O live in scratch memory: whatever fails from here, M and W are as they were
  const auto entries = static_cast<std::size_t>(weight.rows * weight.cols);
  auto& numbers = scratch_of<T>(workspace).numbers;
  if (numbers.size() < 2 * entries) numbers.resize(2 * entries);
  const MatrixViewOf<T> direction = view(numbers.data(), weight.rows, weight.cols);
  const MatrixViewOf<T> output = view(numbers.data() + entries, weight.rows, weight.cols);
  const Averaging<T> average{static_cast<T>(shared.momentum),
                             static_cast<T>(1.0 - shared.momentum)};
  for_each_entry<T>(gradient, scan.clean, [&](T g, std::int64_t i, std::int64_t j) {
    const T m = average(momentum(i, j), g);
    direction(i, j) = shared.nesterov ? average(m, g) : m;
  });

  UpdateStatistics update{.gradient_norm = scan.norm};
  if (!map_blocks(direction, output, rule, workspace, update.half_pass)) {
    if (shared.nonfinite == NonFinite::kSkip) return {.skipped = true};
    throw_momentum();
  }

  for_each_entry<T>(gradient, scan.clean, [&](T g, std::int64_t i, std::int64_t j) {
    momentum(i, j) = average(momentum(i, j), g);
  });
  double moved = 0;
  for (const Block& b : workspace.blocks) {
    const MatrixViewOf<const T> o = output.block(b.row, b.col, b.rows, b.cols);
    const double squares = squared_norm(o);
    moved += move_block(weight.block(b.row, b.col, b.rows, b.cols), o, squares, shared,
                        layout.transposed);
    update.directions_passed += squares;
    update.directions += static_cast<double>(std::min(b.rows, b.cols));
  }
  update.update_rms = std::sqrt(moved / static_cast<double>(entries));
  if (workspace.collect_spectrum) {
    SpectrumSummary summary;
    for (const SpectrumStatistics& block : workspace.spectrum) {
      summary.add(block, workspace.spectrum.size());
    }
    summary.fill(update);
  }
  return update;
}

#define PION_MATRIX_STEP(T, G)                                                        \
  template UpdateStatistics matrix_step<T, G>(MatrixViewOf<T>, MatrixViewOf<const G>, \
                                              MatrixViewOf<T>, const Rule&,           \
                                              const HeadLayout&, MatrixStepWorkspace&);
PION_MATRIX_STEP(float, float)
PION_MATRIX_STEP(float, double)
PION_MATRIX_STEP(float, bfloat16)
PION_MATRIX_STEP(double, float)
PION_MATRIX_STEP(double, double)
PION_MATRIX_STEP(double, bfloat16)
#undef PION_MATRIX_STEP

}  // namespace pion
