// SPDX-License-Identifier: Apache-2.0
// Products of bf16 tiles with what is done to their results while they are in L1.
// Built for the targets with bf16.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "pion/kernels/tile_call.h"
#include "pion/kernels/tile_convert.h"
#include "pion/kernels/tile_product.h"

namespace pion::PION_TARGET {

namespace {

// The 16 x 16 corner below the diagonal of a diagonal block, from the one above.
void mirror_corner(float* block) {
  transpose_tile(block + 16, block + 16 * kBlockEdge, 4 * kBlockEdge, 4 * kBlockEdge);
}

// Where the lines of a block go: two tiles, `step` apart.
struct TilePair {
  Bf16Bits* rounded = nullptr;
  Bf16Bits* rest = nullptr;
  std::size_t step = 0;
};

// A block on its way from a product to a matrix and its tiles.
struct RoundedBlock {
  const TileSymmetric* call;  // alpha, beta, diagonal
  float* product;
  const float* c;  // null if beta is 0
  float* out;      // may be null, may be c
  bool on_diagonal;
  TilePair left, right;
};

struct RoundedRow {
  __m512i rounded, rest;
};

template <bool kRest>
RoundedRow round_row(__m512 first, __m512 second) {
  const __m512i rounded = round_pair(first, second);
  return {rounded, kRest ? rest_of_pair(first, second, rounded) : rounded};
}

// Rows 2p and 2p + 1 to the lines of their tiles.
template <bool kRest>
void store_left_lines(const TilePair& to, std::size_t p, RoundedRow row0,
                      RoundedRow row1) {
  const std::size_t at = p / 8 * to.step + p % 8 * 64;
  _mm512_storeu_si512(to.rounded + at, row0.rounded);
  _mm512_storeu_si512(to.rounded + at + 32, row1.rounded);
  if constexpr (kRest) {
    _mm512_storeu_si512(to.rest + at, row0.rest);
    _mm512_storeu_si512(to.rest + at + 32, row1.rest);
  }
}
template <bool kRest>
void store_right_lines(const TilePair& to, std::size_t p, RoundedRow row0,
                       RoundedRow row1) {
  const Interleaved lines = interleave(row0.rounded, row1.rounded);
  _mm512_storeu_si512(to.rounded + p * 32, lines.first);
  _mm512_storeu_si512(to.rounded + to.step + p * 32, lines.second);
  if constexpr (kRest) {
    const Interleaved rest = interleave(row0.rest, row1.rest);
    _mm512_storeu_si512(to.rest + p * 32, rest.first);
    _mm512_storeu_si512(to.rest + to.step + p * 32, rest.second);
  }
}

// v = alpha product + beta c of rows 2 first_pair up to 2 last_pair of a block, once
// through: to `out`, and rounded to the tiles of both layouts that are wanted. A diagonal
// is added for all but the left tiles, or for these too.
template <bool kLeft, bool kRight, bool kRest>
void round_pairs(const RoundedBlock& block, std::size_t first_pair,
                 std::size_t last_pair) {
  const auto& [call, product, c, out, on_diagonal, left, right] = block;
  const __m512 alpha = _mm512_set1_ps(call->alpha), beta = _mm512_set1_ps(call->beta);
  const __m512 diagonal = _mm512_set1_ps(on_diagonal ? call->diagonal : 0.0f);
  for (std::size_t p = first_pair; p < last_pair; ++p) {
    __m512 v[4];
#pragma GCC unroll 4
    for (std::size_t q = 0; q < 4; ++q) {
      v[q] = _mm512_mul_ps(alpha, _mm512_loadu_ps(product + p * 64 + q * 16));
      if (c != nullptr) {
        v[q] = _mm512_fmadd_ps(beta, _mm512_loadu_ps(c + p * 64 + q * 16), v[q]);
      }
    }
    const auto add_diagonal = [&] {
      const auto bit = static_cast<__mmask16>(1u << (2 * p % 16));
      const auto next = static_cast<__mmask16>(2u << (2 * p % 16));
      const std::size_t half = p / 8;  // v[half] of row 2p, v[2 + half] of the next
      v[half] = _mm512_mask_add_ps(v[half], bit, v[half], diagonal);
      v[2 + half] = _mm512_mask_add_ps(v[2 + half], next, v[2 + half], diagonal);
    };
    if (on_diagonal && call->diagonal_in_left) add_diagonal();
    if constexpr (kLeft) {
      store_left_lines<kRest>(left, p, round_row<kRest>(v[0], v[1]),
                              round_row<kRest>(v[2], v[3]));
    }
    if (on_diagonal && !call->diagonal_in_left) add_diagonal();
    if constexpr (kRight) {
      store_right_lines<kRest>(right, p, round_row<kRest>(v[0], v[1]),
                               round_row<kRest>(v[2], v[3]));
    }
    if (out == nullptr) continue;
    if (call->out_rounded) {
      for (std::size_t q = 0; q < 4; q += 2) {
        const __m512i rounded = round_pair(v[q], v[q + 1]);
        v[q] = first_of_pair(rounded);
        v[q + 1] = second_of_pair(rounded);
      }
    }
#pragma GCC unroll 4
    for (std::size_t q = 0; q < 4; ++q) _mm512_storeu_ps(out + p * 64 + q * 16, v[q]);
  }
}

using RoundPairs = void (*)(const RoundedBlock&, std::size_t, std::size_t);

RoundPairs choose_round_pairs(bool left, bool right, bool rest) {
  if (left && right) {
    return rest ? round_pairs<true, true, true> : round_pairs<true, true, false>;
  }
  if (left)
    return rest ? round_pairs<true, false, true> : round_pairs<true, false, false>;
  if (right)
    return rest ? round_pairs<false, true, true> : round_pairs<false, true, false>;
  return round_pairs<false, false, false>;
}

// The tiles of block (i, j) of a symmetric matrix and of its mirror image (j, i): one
// layout of the image is the transpose of the other layout of the block. A layout that
// nobody wants but the image goes to `spare`.
class FinishSymmetric {
 public:
  static constexpr int kPieces = 12;  // 8 of 4 rows, 4 of two transposed tiles

  explicit FinishSymmetric(const TileSymmetric& call) : call_(call) {
    block_.call = &call;
  }

  void begin(std::size_t i, std::size_t j, std::size_t, float* product) {
    const std::size_t n = call_.product.col_blocks, at = (i * n + j) * kBlockSize;
    const std::size_t step = n * kTileSize;
    const auto pair = [step](Bf16Bits* tiles, Bf16Bits* rest, std::size_t row,
                             std::size_t col) {
      const std::size_t at_tile = 2 * row * step + col * kTileSize;
      return tiles == nullptr
                 ? TilePair{}
                 : TilePair{tiles + at_tile, rest == nullptr ? nullptr : rest + at_tile,
                            step};
    };
    block_.product = product;
    block_.c = call_.beta == 0 ? nullptr : call_.c + at;
    block_.out = call_.out == nullptr ? nullptr : call_.out + at;
    block_.on_diagonal = i == j;
    block_.left = pair(call_.left, call_.left_rest, i, j);
    block_.right = pair(call_.right, call_.right_rest, j, i);
    const bool rest = block_.left.rest != nullptr || block_.right.rest != nullptr;
    mirror_left_ = mirror_right_ = {};
    if (i == j) {
      mirror_corner(product);
    } else {
      mirror_left_ = pair(call_.left, call_.left_rest, j, i);
      mirror_right_ = pair(call_.right, call_.right_rest, i, j);
      const TilePair kept{spare_, spare_ + 2 * kTileSize, kTileSize};
      if (call_.right != nullptr && call_.left == nullptr) block_.left = kept;
      if (call_.left != nullptr && call_.right == nullptr) block_.right = kept;
    }
    round_ = choose_round_pairs(block_.left.rounded, block_.right.rounded, rest);
  }

  void piece(int n) const {
    if (n < 8) {
      const auto pair = static_cast<std::size_t>(2 * n);
      return round_(block_, pair, pair + 2);
    }
    if (n == 8) transpose_pair(block_.right.rounded, block_.right.step, mirror_left_);
    if (n == 9) transpose_pair(block_.left.rounded, block_.left.step, mirror_right_);
    if (n == 10) transpose_rest(block_.right, mirror_left_);
    if (n == 11) transpose_rest(block_.left, mirror_right_);
  }

 private:
  static void transpose_pair(const Bf16Bits* from, std::size_t from_step,
                             const TilePair& to) {
    if (to.rounded == nullptr) return;
    transpose_tile(from, to.rounded);
    transpose_tile(from + from_step, to.rounded + to.step);
  }
  static void transpose_rest(const TilePair& from, const TilePair& to) {
    if (to.rest == nullptr) return;
    transpose_tile(from.rest, to.rest);
    transpose_tile(from.rest + from.step, to.rest + to.step);
  }

  const TileSymmetric& call_;
  RoundedBlock block_;
  TilePair mirror_left_, mirror_right_;
  RoundPairs round_ = nullptr;
  alignas(64) Bf16Bits spare_[4 * kTileSize];
};

void copy_block(const float* from, float* to) {
  for (std::size_t e = 0; e < kBlockSize; e += 16)
    _mm512_storeu_ps(to + e, _mm512_loadu_ps(from + e));
}

// W <- decay W + alpha O, and the sum of the squares of O by item. Block by block while
// the result is in L1: with whole rows of eight blocks it made a way to L2 and back.
class FinishUpdate {
 public:
  static constexpr int kPieces = 4;  // of 8 rows

  explicit FinishUpdate(const TileUpdate& call) : call_(call) {}

  void begin(std::size_t i, std::size_t j, std::size_t item, const float* block) {
    if (item != item_) next_item(item);
    const std::size_t row = i * kBlockEdge, col = j * kBlockEdge;
    block_ = block;
    const std::size_t at = (i * call_.product.col_blocks + j) * kBlockSize;
    x_ = call_.x == nullptr ? nullptr : call_.x + at;
    other_ = call_.other == nullptr ? nullptr : call_.other + at;
    rows_ = smaller(kBlockEdge, call_.rows - row);
    low_ = first_lanes(col, call_.cols);
    high_ = first_lanes(col + 16, call_.cols);
    weight_ = call_.weight + row * call_.weight_stride + col;
  }

  void piece(int n) {
    const auto first = static_cast<std::size_t>(8 * n);
    for (std::size_t r = first; r < smaller(first + 8, rows_); ++r) step_row(r);
  }

  void complete() { next_item(kNone); }

 private:
  void step_row(std::size_t r) {
    const __m512 alpha = _mm512_set1_ps(call_.alpha), decay = _mm512_set1_ps(call_.decay);
    float* weight = weight_ + r * call_.weight_stride;
    _mm_prefetch(reinterpret_cast<const char*>(weight + kAhead), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(weight + kAhead + 16), _MM_HINT_T1);
    const std::size_t at = r * kBlockEdge;
    __m512 o0 = _mm512_loadu_ps(block_ + at), o1 = _mm512_loadu_ps(block_ + at + 16);
    if (x_ != nullptr) {
      const __m512 beta = _mm512_set1_ps(call_.beta);
      o0 = _mm512_fmadd_ps(beta, _mm512_loadu_ps(x_ + at), o0);
      o1 = _mm512_fmadd_ps(beta, _mm512_loadu_ps(x_ + at + 16), o1);
    }
    if (other_ != nullptr) {
      inner_ = _mm512_fmadd_ps(_mm512_loadu_ps(other_ + at), o0, inner_);
      inner_ = _mm512_fmadd_ps(_mm512_loadu_ps(other_ + at + 16), o1, inner_);
    }
    squares_[0] = _mm512_fmadd_ps(o0, o0, squares_[0]);
    squares_[1] = _mm512_fmadd_ps(o1, o1, squares_[1]);
    __m512 w0 = _mm512_mul_ps(alpha, o0), w1 = _mm512_mul_ps(alpha, o1);
    if (call_.decay != 0) {
      w0 = _mm512_fmadd_ps(decay, _mm512_maskz_loadu_ps(low_, weight), w0);
      w1 = _mm512_fmadd_ps(decay, _mm512_maskz_loadu_ps(high_, weight + 16), w1);
    }
    _mm512_mask_storeu_ps(weight, low_, w0);
    _mm512_mask_storeu_ps(weight + 16, high_, w1);
  }

  void next_item(std::size_t item) {
    if (item_ != kNone) {
      call_.squares[item_] = static_cast<double>(
          _mm512_reduce_add_ps(_mm512_add_ps(squares_[0], squares_[1])));
      if (call_.other != nullptr) {
        call_.inner[item_] = static_cast<double>(_mm512_reduce_add_ps(inner_));
      }
    }
    item_ = item;
    squares_[0] = squares_[1] = inner_ = _mm512_setzero_ps();
  }

  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  // Into L2, not L1: rows of a weight are often some KiB apart and share its sets.
  static constexpr std::size_t kAhead = 2 * kBlockEdge;

  const TileUpdate& call_;
  std::size_t item_ = kNone, rows_ = 0;
  __mmask16 low_ = 0, high_ = 0;
  float* weight_ = nullptr;
  const float *block_ = nullptr, *x_ = nullptr, *other_ = nullptr;
  __m512 squares_[2] = {}, inner_ = {};
};

// x <- alpha product + beta x, and its tiles.
class FinishAdvance {
 public:
  static constexpr int kPieces = 8;  // of 4 rows

  explicit FinishAdvance(const TileAdvance& call)
      : call_(call),
        how_{.alpha = call.alpha, .beta = call.beta, .out_rounded = call.x_rounded} {
    block_.call = &how_;
    block_.on_diagonal = false;
  }

  void begin(std::size_t i, std::size_t j, std::size_t, float* product) {
    const std::size_t at = i * call_.product.col_blocks + j;
    block_.product = product;
    block_.out = call_.x == nullptr ? nullptr : call_.x + at * kBlockSize;
    block_.c = call_.beta == 0 ? nullptr : block_.out;
    block_.left = {call_.left + 2 * i * call_.left_step + j * kTileSize, nullptr,
                   call_.left_step};
    block_.right = {call_.right + 2 * j * call_.right_step + i * kTileSize, nullptr,
                    call_.right_step};
  }

  void piece(int n) const {
    const auto pair = static_cast<std::size_t>(2 * n);
    round_pairs<true, true, false>(block_, pair, pair + 2);
  }

 private:
  const TileAdvance& call_;
  TileSymmetric how_;
  RoundedBlock block_;
};

}  // namespace

void gram(const TileGram& call, std::size_t first_item, std::size_t last_item) {
  const TileRegisters registers;
  const TileProduct& p = call.product;
  std::size_t item = 0;
  for (std::size_t group = 0; group < p.col_blocks; group += p.group) {
    const std::size_t end = smaller(group + p.group, p.col_blocks);
    for (std::size_t i = 0; i < end; ++i, ++item) {
      if (item < first_item || item >= last_item) continue;
      for (std::size_t k0 = 0; k0 < p.k_tiles; k0 += kDepth) {
        const std::size_t k1 = smaller(k0 + kDepth, p.k_tiles);
        for (std::size_t j = i > group ? i : group; j < end; ++j) {
          multiply_block(p, i, j, k0, k1, call.accumulate || k0 > 0, i == j,
                         call.blocks + (i * p.col_blocks + j) * kBlockSize, [] {});
        }
      }
    }
  }
}

void symmetric(const TileSymmetric& call, std::size_t first, std::size_t last) {
  const TileRegisters registers;
  BlockBuffer buffer;
  FinishSymmetric finish(call);
  multiply_items(call.product, first, last, buffer, finish);
}

void round_gram(const TileSymmetric& call, std::size_t first, std::size_t last) {
  alignas(64) float block[kBlockSize];
  const std::size_t n = call.product.col_blocks;
  TileSymmetric scaled = call;
  scaled.alpha = call.beta;
  scaled.beta = 0;
  FinishSymmetric finish(scaled);
  for (std::size_t i = first; i < last; ++i) {
    for (std::size_t j = i; j < n; ++j) {
      copy_block(call.c + (i * n + j) * kBlockSize, block);
      finish.begin(i, j, 0, block);
      for (int piece = 0; piece < FinishSymmetric::kPieces; ++piece) finish.piece(piece);
    }
  }
}

void update(const TileUpdate& call, std::size_t first_item, std::size_t last_item) {
  const TileRegisters registers;
  BlockBuffer buffer;
  FinishUpdate finish(call);
  multiply_items(call.product, first_item, last_item, buffer, finish);
  finish.complete();
}

void advance(const TileAdvance& call, std::size_t first_item, std::size_t last_item) {
  const TileRegisters registers;
  BlockBuffer buffer;
  FinishAdvance finish(call);
  multiply_items(call.product, first_item, last_item, buffer, finish);
}

double multiply_peak(std::size_t repetitions, float* last) {
  const TileRegisters registers;
  alignas(64) Bf16Bits ones[32 * kTileSize];
  alignas(64) float c[kBlockSize] = {};
  for (Bf16Bits& one : ones) one = 0x3f80;
  const TileProduct product{.left = ones,
                            .left_step = 8 * kTileSize,
                            .right = ones + 16 * kTileSize,
                            .right_step = 8 * kTileSize,
                            .k_tiles = 8,
                            .row_blocks = 1,
                            .col_blocks = 1,
                            .symmetric = false};
  for (std::size_t r = 0; r < repetitions; ++r) {
    multiply_block(product, 0, 0, 0, 8, r > 0, false, c, [] {});
    asm volatile("" : : "r"(c) : "memory");  // reads c: else a compiler leaves it all out
  }
  *last = c[kBlockSize - 1];
  return static_cast<double>(repetitions) * 2.0 * 32 * 32 * 256;
}

}  // namespace pion::PION_TARGET
