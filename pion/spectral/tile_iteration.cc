// SPDX-License-Identifier: Apache-2.0
// The two iterations of TileMap.
#include <algorithm>
#include <cstring>

#include "pion/spectral/tile_map.h"

namespace pion {

TileMap::Tiles TileMap::tiles(Scratch<Bf16Bits>& memory, bool with_rest) {
  const std::size_t size = kTileSize * 2 * m_blocks_ * m_blocks_;
  return {memory.data(), with_rest ? memory.data() + size : nullptr};
}

// L R of two symmetric matrices: single bf16, or with both rests.
TileProduct TileMap::short_product(const Tiles& left, const Tiles& right) const {
  const std::size_t step = m_blocks_ * kTileSize;
  const bool rests = left.rest != nullptr && right.rest != nullptr;
  return {.terms = rests ? Terms::kBothRests : Terms::kOne,
          .left = left.rounded,
          .left_rest = left.rest,
          .left_step = step,
          .right = right.rounded,
          .right_rest = right.rest,
          .right_step = step,
          .k_tiles = m_blocks_,
          .row_blocks = m_blocks_,
          .col_blocks = m_blocks_,
          .symmetric = true};
}

// Q X, or X Q for tall blocks.
TileProduct TileMap::long_product(const Tiles& q) const {
  const std::size_t step = m_blocks_ * kTileSize;
  TileProduct product{.left_step = wide_ ? step : left_step_,
                      .right_step = wide_ ? right_step_ : step,
                      .k_tiles = m_blocks_,
                      .row_blocks = row_blocks_,
                      .col_blocks = col_blocks_,
                      .symmetric = false};
  if (wide_) {
    product.terms = q.rest == nullptr ? Terms::kOne : Terms::kLeftRest;
    product.left = q.rounded;
    product.left_rest = q.rest;
    product.right = kept_right_.data();
  } else {
    product.terms = q.rest == nullptr ? Terms::kOne : Terms::kRightRest;
    product.left = kept_left_.data();
    product.right = q.rounded;
    product.right_rest = q.rest;
  }
  return product;
}

void TileMap::run_symmetric(const TileSymmetric& call, Executor& executor) {
  run_items(item_count(call.product), executor, [&](std::size_t first, std::size_t last) {
    kernels_.symmetric(call, first, last);
  });
}

// Tiles of square * gram in both layouts; `out`, if not null, gets its blocks, rounded as
// the tiles are or not.
void TileMap::round_gram(double square, const float* gram, float* out, const Tiles& left,
                         const Tiles& right, Executor& executor, bool rounded) {
  const TileSymmetric call{.product = short_product(left, right),
                           .beta = static_cast<float>(square),
                           .c = gram,
                           .out = out,
                           .out_rounded = rounded,
                           .left = left.rounded,
                           .left_rest = left.rest,
                           .right = right.rounded,
                           .right_rest = right.rest};
  run_items(m_blocks_, executor, [&](std::size_t first, std::size_t last) {
    kernels_.round_gram(call, first, last);
  });
}

void TileMap::iterate_gram(const SpectralMap& map, Executor& executor) {
  const std::size_t steps = policy_.steps, restart = policy_.restart;
  output_factor_ = factor_;
  const std::size_t bytes = kBlockSize * m_blocks_ * m_blocks_ * sizeof(float);
  if (restart == steps) {
    run_steps(map, 0, steps, executor);
    if (collect_) inner_ = symmetric_inner_product(q_.data(), first_a_.data());
    return;
  }
  const Tiles q = run_steps(map, 0, restart, executor);
  if (collect_) {  // <Q2 Q1, A> = <Q2, Q1 A>
    const Tiles a_left = tiles(a_left_, false), a_right = tiles(a_right_, false);
    round_gram(1, first_a_.data(), nullptr, a_left, a_right, executor);
    run_symmetric(
        {.product = wide_ ? short_product(q, a_right) : short_product(a_left, q),
         .alpha = 1,
         .out = t_.data()},
        executor);
    std::memcpy(first_a_.data(), t_.data(), bytes);
  }
  other_left_.at_least(2 * row_blocks_ * left_step_);
  other_right_.at_least(2 * col_blocks_ * right_step_);
  advance(output_, output_factor_, 0, nullptr, executor);
  output_factor_ = 1;
  gram_of_kept(executor);
  run_steps(map, restart, steps, executor);
  if (collect_) inner_ = symmetric_inner_product(q_.data(), first_a_.data());
}

// Step k of those from `begin` to `end`, and where its matrices lie.
TileMap::Step TileMap::step_at(const SpectralMap& map, std::size_t k, std::size_t begin,
                               std::size_t end) {
  const bool last = k + 1 == end, exact = !policy_.single(k);
  const bool next_exact = !last && !policy_.single(k + 1);
  // how Q goes on: as right operand of the next step, or into the last product
  bool q_rest = last ? policy_.rest_of_last && end == policy_.steps : next_exact;
  bool p_rest = exact;
  // P and the first Q are rounded at once, both with a rest or none
  if (k == begin) p_rest = q_rest = q_rest || (exact && !last);
  return {.quintic = map.sequence[k],
          .first = k == begin,
          .last = last,
          .a_left = tiles(a_left_, exact),
          .a_right = tiles(a_right_, exact),
          .p = tiles(p_tiles_, p_rest),
          .t = tiles(t_right_, exact),
          .q = tiles(k % 2 == 0 ? q_other_ : q_tiles_, exact),
          .next_left = tiles(a_left_, next_exact),
          .next_right = tiles(a_right_, next_exact),
          .next_q = tiles(k % 2 == 0 ? q_tiles_ : q_other_, q_rest)};
}

// P = b A + c A^2; in the first step also Q = a I + P.
void TileMap::form_p(const Step& step, Executor& executor) {
  TileSymmetric call{.product = short_product(step.a_left, step.a_right),
                     .alpha = static_cast<float>(step.quintic.c),
                     .beta = static_cast<float>(step.quintic.b),
                     .diagonal = 0,
                     .c = a_.data(),
                     .left = step.p.rounded,
                     .left_rest = step.p.rest};
  if (step.first) {
    call.diagonal = static_cast<float>(step.quintic.a);
    call.out = q_.data();
    if (step.last && wide_) {
      call.diagonal_in_left = true;
      call.left = step.next_q.rounded;
      call.left_rest = step.next_q.rest;
    } else {
      call.right = step.next_q.rounded;
      call.right_rest = step.next_q.rest;
    }
  }
  run_symmetric(call, executor);
}

// Q = a Q + P Q.
void TileMap::advance_q(const Step& step, Executor& executor) {
  TileSymmetric call{.product = short_product(step.p, step.q),
                     .alpha = 1,
                     .beta = static_cast<float>(step.quintic.a),
                     .c = q_.data(),
                     .out = q_.data()};
  const bool left = step.last && wide_;
  (left ? call.left : call.right) = step.next_q.rounded;
  (left ? call.left_rest : call.right_rest) = step.next_q.rest;
  run_symmetric(call, executor);
}

// T = a A + P A, A = a T + P T.
void TileMap::advance_a(const Step& step, Executor& executor) {
  const auto a = static_cast<float>(step.quintic.a);
  run_symmetric({.product = short_product(step.p, step.a_right),
                 .alpha = 1,
                 .beta = a,
                 .c = a_.data(),
                 .out = t_.data(),
                 .right = step.t.rounded,
                 .right_rest = step.t.rest},
                executor);
  run_symmetric({.product = short_product(step.p, step.t),
                 .alpha = 1,
                 .beta = a,
                 .c = t_.data(),
                 .out = a_.data(),
                 .left = step.next_left.rounded,
                 .left_rest = step.next_left.rest,
                 .right = step.next_right.rounded,
                 .right_rest = step.next_right.rest},
                executor);
}

// Steps [begin, end) from Q = I and the Gram matrix of output_factor_ X on; then output_
// is Q X. Returns the tiles of Q that it takes.
TileMap::Tiles TileMap::run_steps(const SpectralMap& map, std::size_t begin,
                                  std::size_t end, Executor& executor) {
  const Step first = step_at(map, begin, begin, end);
  round_gram(output_factor_ * output_factor_, a_.data(), a_.data(), first.a_left,
             first.a_right, executor);
  if (collect_ && begin == 0) {
    std::memcpy(first_a_.data(), a_.data(),
                kBlockSize * m_blocks_ * m_blocks_ * sizeof(float));
  }
  Tiles q;
  for (std::size_t k = begin; k < end; ++k) {
    const Step step = step_at(map, k, begin, end);
    form_p(step, executor);
    if (!step.first) advance_q(step, executor);
    if (!step.last) advance_a(step, executor);
    q = step.next_q;
  }
  output_ = long_product(q);
  return q;
}

// x = alpha product + beta x, rounded or not, and its tiles become the kept ones.
void TileMap::advance(const TileProduct& product, double alpha, double beta, float* x,
                      Executor& executor, bool rounded) {
  const TileAdvance call{.product = product,
                         .alpha = static_cast<float>(alpha),
                         .beta = static_cast<float>(beta),
                         .x = x,
                         .x_rounded = rounded,
                         .left = other_left_.data(),
                         .left_step = left_step_,
                         .right = other_right_.data(),
                         .right_step = right_step_};
  run_items(item_count(product), executor, [&](std::size_t first, std::size_t last) {
    kernels_.advance(call, first, last);
  });
  std::swap(kept_left_, other_left_);
  std::swap(kept_right_, other_right_);
  whole_ = true;
}

// <S, R> over all entries of two symmetric matrices of which the upper blocks are there.
double TileMap::symmetric_inner_product(const float* s, const float* r) const {
  double total = 0;
  for (std::size_t i = 0; i < m_blocks_; ++i) {
    for (std::size_t j = i; j < m_blocks_; ++j) {
      const std::size_t at = (i * m_blocks_ + j) * kBlockSize;
      double sum = 0;
      for (std::size_t e = 0; e < kBlockSize; ++e) {
        sum += static_cast<double>(s[at + e]) * static_cast<double>(r[at + e]);
      }
      total += i == j ? sum : 2 * sum;
    }
  }
  return total;
}

// The last step is left to the update: O = a X + P X.
//
// Products of single tiles know the rounded A and X alone. Where b A or a X came from f32
// beside them, the step would be no polynomial of any matrix, and rounding would be
// magnified by the slope of one term: 2 c A, or p' - a, in place of b + 2 c A and p',
// which nearly vanish where singular values have arrived. So A is rounded with its tiles,
// and X from policy_.round_x_from on; in earlier steps X in f32 keeps weak directions.
void TileMap::iterate_directly(const SpectralMap& map, Executor& executor) {
  if (collect_) {
    std::memcpy(first_x_.data(), x_.data(),
                row_blocks_ * col_blocks_ * kBlockSize * sizeof(float));
  }
  const bool exact = !policy_.single(0);  // of all steps: none is apart here
  const Tiles a_left = tiles(a_left_, exact), a_right = tiles(a_right_, exact);
  const Tiles p = tiles(p_tiles_, policy_.rest_of_last);
  double factor = factor_;
  for (std::size_t k = 0; k < policy_.steps; ++k, factor = 1.0) {
    const Quintic& step = map.sequence[k];
    if (k > 0) gram_of_kept(executor);
    round_gram(factor * factor, a_.data(), a_.data(), a_left, a_right, executor, !exact);
    TileSymmetric polynomial{.product = short_product(a_left, a_right),
                             .alpha = static_cast<float>(step.c),
                             .beta = static_cast<float>(step.b),
                             .c = a_.data()};
    (wide_ ? polynomial.left : polynomial.right) = p.rounded;
    (wide_ ? polynomial.left_rest : polynomial.right_rest) = p.rest;
    run_symmetric(polynomial, executor);
    if (k + 1 == policy_.steps) {
      output_ = long_product(p);
      output_factor_ = factor;
      output_beta_ = step.a;
    } else {
      advance(long_product(p), factor, factor * step.a, x_.data(), executor,
              k + 1 >= policy_.round_x_from);
    }
  }
}

void TileMap::gram_of_kept(Executor& executor) {
  for (std::size_t chunk = 0; chunk * chunk_tiles_ < n_blocks_; ++chunk) {
    const std::size_t k0 = chunk * chunk_tiles_;
    const std::size_t tiles = std::min(chunk_tiles_, n_blocks_ - k0);
    const std::size_t tasks = wide_ ? m_blocks_ : tiles;
    executor.run(static_cast<int>(tasks), [&](int index, int) {
      const auto task = static_cast<std::size_t>(index);
      const Bf16Bits* left = kept_left_.data() + 2 * task * left_step_ + k0 * kTileSize;
      const Bf16Bits* right = kept_right_.data() + (k0 + task) * kTileSize;
      transpose_piece(left, left_step_, right, right_step_, tiles, task);
    });
    add_gram(chunk, executor);
  }
}

}  // namespace pion
