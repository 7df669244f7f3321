// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/f32_map.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pion/kernels/block_load.h"
#include "pion/kernels/sum_of_squares.h"

namespace pion {

namespace {

// Rows of a task: those of tall blocks are transposed in L1.
constexpr std::int64_t kWideBand = 8, kTallBand = 32;

// Entries of a transposed piece: 512 KiB, so that it is still in L2 when it is
// multiplied; one depth of a product at least.
constexpr std::int64_t kPiece = 128 * 1024;

// Entries of a row that move with it where rows would lie 1, 2, 4 ... KiB apart: columns
// of such a matrix share too few sets of L1.
constexpr std::int64_t kPadding = 16;

MatrixView padded(Scratch<float>& memory, std::int64_t rows, std::int64_t cols) {
  const std::int64_t stride = cols + (cols % 256 == 0 ? kPadding : 0);
  return {memory.at_least(static_cast<std::size_t>(rows * stride)).data(), rows, cols,
          stride};
}

// <S, R> over all entries of two matrices.
double inner_product(ConstMatrixView s, ConstMatrixView r) {
  double total = 0;
  for (std::int64_t i = 0; i < s.rows; ++i) {
    double row = 0;
    for (std::int64_t j = 0; j < s.cols; ++j) {
      row += static_cast<double>(s(i, j)) * static_cast<double>(r(i, j));
    }
    total += row;
  }
  return total;
}

void copy(ConstMatrixView from, MatrixView to) {
  const auto row = static_cast<std::size_t>(from.cols) * sizeof(float);
  for (std::int64_t i = 0; i < from.rows; ++i) std::memcpy(to.row(i), from.row(i), row);
}

// Calls work(first, last) for bands of 16 rows, a cache line of a column.
template <class Work>
void run_bands(std::int64_t rows, Executor& executor, Work work) {
  constexpr std::int64_t kBand = 16;
  executor.run(static_cast<int>((rows + kBand - 1) / kBand), [&](int task, int) {
    const std::int64_t first = task * kBand;
    work(first, std::min(first + kBand, rows));
  });
}

}  // namespace

void F32Map::allocate(const SpectralMap& map) {
  policy_ = f32_policy(map, rows_, cols_);
  const bool renewed = policy_.direct || policy_.restart < policy_.steps;
  turned_ = renewed && !wide_;
  m_ = std::min(rows_, cols_);
  n_ = std::max(rows_, cols_);
  band_ = wide_ ? kWideBand : kTallBand;
  const auto depth = static_cast<std::int64_t>(kGemmDepth);
  chunk_ = wide_ || turned_
               ? rows_
               : std::min(rows_, std::max<std::int64_t>(1, kPiece / m_ / depth) * depth);
  if (turned_) {
    x_ = padded(x_memory_, m_, n_);
    transposed_ = padded(transposed_memory_, n_, m_);  // rows on their way to columns
  } else {
    x_ = padded(x_memory_, rows_, cols_);
    if (!wide_) transposed_ = padded(transposed_memory_, m_, chunk_);
  }
  if (renewed) next_ = padded(next_memory_, x_.rows, x_.cols);
  if (collect_) {
    first_.at_least(
        static_cast<std::size_t>(m_ * (policy_.direct ? x_.stride : m_ + kPadding)));
  }
  a_ = padded(a_memory_, m_, m_);
  p_ = padded(p_memory_, m_, m_);
  if (!policy_.direct) {
    t_ = padded(t_memory_, m_, m_);
    q_ = padded(q_memory_, m_, m_);
    q_next_ = padded(q_next_memory_, m_, m_);
  }
  const auto bands = static_cast<std::size_t>((rows_ + band_ - 1) / band_);
  largest_.resize(std::max(bands, largest_.size()));
}

GemmMemory<float> F32Map::memory(Executor& executor) {
  const auto threads = static_cast<std::size_t>(executor.threads());
  return {packed_.at_least(threads * kGemmScratch), executor};
}

// Rows of the block; `first_column` of a transposed piece is theirs.
void F32Map::load_rows(const BlockSource& source, float scale, bool update_momentum,
                       std::int64_t row, std::int64_t rows, std::int64_t first_column,
                       std::uint32_t& largest) {
  const bool narrow = source.gradient.data == nullptr;
  BlockLoad call{
      .gradient = narrow ? nullptr : source.gradient.row(row),
      .narrow_gradient = narrow ? &source.narrow_gradient.row(row)->bits : nullptr,
      .gradient_stride = static_cast<std::size_t>(narrow ? source.narrow_gradient.stride
                                                         : source.gradient.stride),
      .momentum = source.momentum.data ? source.momentum.row(row) : nullptr,
      .momentum_stride = static_cast<std::size_t>(source.momentum.stride),
      .update_momentum = update_momentum,
      .mu = source.mu,
      .share = source.share,
      .nesterov = source.nesterov,
      .scale = scale,
      .rows = static_cast<std::size_t>(rows),
      .cols = static_cast<std::size_t>(cols_)};
  const MatrixView& rows_of_x = turned_ ? transposed_ : x_;
  call.x = rows_of_x.row(row), call.x_stride = static_cast<std::size_t>(rows_of_x.stride);
  if (!wide_) {
    const MatrixView& columns = turned_ ? x_ : transposed_;
    call.transposed = columns.data + first_column;
    call.transposed_stride = static_cast<std::size_t>(columns.stride);
  }
  largest = load_block(call, target_);
}

void F32Map::load_chunk(const BlockSource& source, float scale, bool update_momentum,
                        std::int64_t row, std::int64_t rows, Executor& executor) {
  executor.run(static_cast<int>((rows + band_ - 1) / band_), [&](int task, int) {
    // a momentum that decays to nothing must not stay denormal, but a denormal D counts
    const FlushDenormals flush(Denormals::kZeroResults);
    const std::int64_t first = task * band_;
    load_rows(source, scale, update_momentum, row + first, std::min(band_, rows - first),
              first, largest_[static_cast<std::size_t>((row + first) / band_)]);
  });
}

// Also the Gram matrix. Returns the bits of the largest |D|.
std::uint32_t F32Map::load_all(const BlockSource& source, float scale,
                               bool update_momentum, Executor& executor) {
  Flushing flushing(executor);
  const GemmMemory<float> packed = memory(flushing);
  for (std::int64_t row = 0; row < rows_; row += chunk_) {
    const std::int64_t rows = std::min(chunk_, rows_ - row);
    load_chunk(source, scale, update_momentum, row, rows, executor);
    const FlushDenormals flush;
    const bool piece = !wide_ && !turned_;
    const MatrixView x = piece ? transposed_.block(0, 0, m_, rows) : x_;
    symmetric_product<float>(1, x, row == 0 ? 0.0f : 1.0f, a_, a_, packed, target_);
  }
  const auto bands = static_cast<std::ptrdiff_t>((rows_ + band_ - 1) / band_);
  return *std::max_element(largest_.begin(), largest_.begin() + bands);
}

double F32Map::gram_trace() const {
  double sum = 0;
  for (std::int64_t i = 0; i < m_; ++i) sum += static_cast<double>(a_(i, i));
  return sum;
}

double F32Map::largest_eigenvalue_of_gram(int steps) {
  return largest_eigenvalue<float>(a_, steps, lanczos_) / (norm_ * norm_);
}

void F32Map::iterate(const SpectralMap& map, Executor& executor) {
  Flushing flushing(executor);
  x_factor_ = factor_;
  if (policy_.direct) {
    iterate_directly(map, flushing);
  } else {
    iterate_gram(map, flushing);
  }
}

void F32Map::scale_gram(double square, Executor& executor) {
  const auto by = static_cast<float>(square);
  run_bands(m_, executor, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      float* row = a_.row(i);
      for (std::int64_t j = 0; j < m_; ++j) row[j] *= by;
    }
  });
}

void F32Map::iterate_gram(const SpectralMap& map, Executor& executor) {
  const QuinticSequence& sequence = map.sequence;
  const GemmMemory<float> packed = memory(executor);
  const MatrixView first{first_.data(), m_, m_, a_.stride};
  scale_gram(factor_ * factor_, executor);
  if (collect_) copy(a_, first);
  for (std::size_t k = 0; k < sequence.size(); ++k) {
    const auto a = static_cast<float>(sequence[k].a),
               b = static_cast<float>(sequence[k].b),
               c = static_cast<float>(sequence[k].c);
    const bool begins = k == 0 || k == policy_.restart;
    if (begins && k > 0) restart(executor);
    commuting_product<float>(c, a_, a_, b, a_, p_, packed, target_);
    if (begins) {  // Q = a I + P
      copy(p_, q_);
      for (std::int64_t i = 0; i < m_; ++i) q_(i, i) += a;
    } else {
      commuting_product<float>(1, p_, q_, a, q_, q_next_, packed, target_);
      std::swap(q_, q_next_);
    }
    if (k + 1 == sequence.size()) break;
    if (k + 1 == policy_.restart) continue;
    commuting_product<float>(1, p_, a_, a, a_, t_, packed, target_);
    commuting_product<float>(1, p_, t_, a, t_, a_, packed, target_);
  }
  if (collect_) inner_ = inner_product(q_, first);
  if (!turned_) return;  // O = Q X is left to move()
  product<float>(static_cast<float>(x_factor_), q_, x_, 0, {}, next_, packed, target_);
  std::swap(x_, next_);
}

// X <- Q X, A = X X^T. For <factor X, O> = <Q, A>, where A is that of the first X, what Q
// was goes into A.
void F32Map::restart(Executor& executor) {
  const GemmMemory<float> packed = memory(executor);
  product<float>(static_cast<float>(factor_), q_, x_, 0, {}, next_, packed, target_);
  std::swap(x_, next_);
  x_factor_ = 1;
  symmetric_product<float>(1, x_, 0, {}, a_, packed, target_);
  if (!collect_) return;
  const MatrixView first{first_.data(), m_, m_, a_.stride};
  commuting_product<float>(1, q_, first, 0, {}, t_, packed, target_);
  copy(t_, first);
}

void F32Map::iterate_directly(const SpectralMap& map, Executor& executor) {
  const GemmMemory<float> packed = memory(executor);
  const MatrixView first{first_.data(), m_, n_, x_.stride};
  if (collect_) copy(x_, first);
  double factor = factor_;
  for (std::size_t k = 0; k < map.sequence.size(); ++k, factor = 1.0) {
    const Quintic& step = map.sequence[k];
    if (k == 0) {
      scale_gram(factor * factor, executor);
    } else {
      symmetric_product<float>(1, x_, 0, {}, a_, packed, target_);
    }
    commuting_product<float>(static_cast<float>(step.c), a_, a_,
                             static_cast<float>(step.b), a_, p_, packed, target_);
    product<float>(static_cast<float>(factor), p_, x_,
                   static_cast<float>(factor * step.a), x_, next_, packed, target_);
    std::swap(x_, next_);
  }
  if (collect_) inner_ = factor_ * inner_product(first, x_);
}

double F32Map::move(MatrixView weight, double decay, double alpha, Executor& executor) {
  Flushing flushing(executor);
  if (turned_ || policy_.direct) return move_output(weight, decay, alpha, flushing);
  return product_update<float>(static_cast<float>(alpha * x_factor_), q_, x_,
                               static_cast<float>(decay), weight, memory(flushing),
                               target_) *
         x_factor_ * x_factor_;
}

// X is O, (m x n).
double F32Map::move_output(MatrixView weight, double decay, double alpha,
                           Executor& executor) {
  const std::span<double> sums = squares_.at_least(static_cast<std::size_t>(m_));
  run_bands(m_, executor, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::span<const float> row(x_.row(i), static_cast<std::size_t>(n_));
      sums[static_cast<std::size_t>(i)] = sum_of_squares(row, target_);
    }
  });
  const std::int64_t step = wide_ ? 1 : x_.stride;
  const auto d = static_cast<float>(decay), s = static_cast<float>(alpha);
  run_bands(rows_, executor, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const float* o = wide_ ? x_.row(i) : x_.data + i;
      float* to = weight.row(i);
      for (std::int64_t j = 0; j < cols_; ++j) {
        to[j] = d == 0 ? s * o[j * step] : d * to[j] + s * o[j * step];
      }
    }
  });
  double squares = 0;
  for (const double sum : sums) squares += sum;
  return squares;
}

}  // namespace pion
