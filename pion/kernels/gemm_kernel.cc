// SPDX-License-Identifier: Apache-2.0
// Built once per CPU target with that target's flags. Hence no checks, no allocation
// and no standard header but <cstddef> and <cstdint>: an inline function compiled here
// for AVX-512 could be the copy the linker keeps for the whole program.
//
// out = alpha op(A) op(B) + beta C, tile by tile. A tile wants both operands depth by
// depth: 12 entries of A side by side, 32 of B. Small operands that lie so are read where
// they are; others are copied into panels first. Every entry is the same chain of
// multiply-adds on every path, so paths and blocks change no bit.

#include <cstddef>
#include <cstdint>

#include "pion/kernels/gemm_call.h"
#include "pion/kernels/gemm_tile.h"
#include "pion/kernels/transpose_block.h"

namespace pion::PION_TARGET {

namespace {

// Up to this many rows a small B is not copied: it and its copy would fill L1.
constexpr std::size_t kRowsWithoutCopy = 64;
// A that lies row by row is read where it is if B is no wider than this.
constexpr std::size_t kReadByRow = 128;

std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

// Rows [0, rows) of A in groups of `group` rows, the first at `data`.
template <class T>
struct LeftOperand {
  const T* data;
  std::size_t group, group_step;
  std::size_t step;  // see multiply_tile
  bool by_row;
};

// A block of a product: rows [row, row + rows), columns [column, column + columns), one
// depth. B in panels of kTileCols columns.
template <class T>
struct Block {
  std::size_t row, rows, column, columns, depth;
  LeftOperand<T> left;
  Panel<T> right;  // the first of them; a copy is overwritten by the next panel's
  std::size_t right_panel;  // from one to the next
  TileEnd<T> end;           // of the block's first entry
  double* squares;          // += the sum of squares; or nullptr
  bool symmetric;
};

// Panels of `width` of `count` columns of x (depth x count), each stored depth by depth.
// A last panel that is not full is filled up with zeros.
template <class T>
void pack_columns(const T* x, std::size_t stride, std::size_t count, std::size_t depth,
                  std::size_t width, T* to) {
  for (std::size_t j = 0; j < count; j += width, to += width * depth) {
    const std::size_t filled = smaller(width, count - j);
    for (std::size_t p = 0; p < depth; ++p) {
      const T* row = x + p * stride + j;
      T* line = to + p * width;
      if (filled == width && width == kTileCols<T>) {
        __builtin_memcpy(line, row, kTileCols<T> * sizeof(T));  // two vectors
        continue;
      }
      if (filled == width && width == kTileRows) {
        __builtin_memcpy(line, row, kTileRows * sizeof(T));
        continue;
      }
      for (std::size_t c = 0; c < filled; ++c) line[c] = row[c];
      for (std::size_t c = filled; c < width; ++c) line[c] = T{0};
    }
  }
}

// The same for rows of x (count x depth).
template <class T>
void pack_rows(const T* x, std::size_t stride, std::size_t count, std::size_t depth,
               std::size_t width, T* to) {
  for (std::size_t i = 0; i < count; i += width, to += width * depth) {
    const std::size_t filled = smaller(width, count - i);
    transpose(x + i * stride, stride, filled, depth, to, width);
    for (std::size_t p = 0; filled < width && p < depth; ++p) {
      for (std::size_t c = filled; c < width; ++c) to[p * width + c] = T{0};
    }
  }
}

// Tiles of rows [first, last) of the block, kVectors wide from column `j` of it.
template <std::size_t kVectors, Reading kReading, class T>
void multiply_rows(const Block<T>& block, std::size_t first, std::size_t last,
                   std::size_t j, Panel<T> panel, std::size_t cols) {
  const LeftOperand<T>& left = block.left;
  std::size_t group = first < left.group ? 0 : first / left.group;
  std::size_t fetched = 0;
  for (std::size_t i = first; i < last; ++group) {
    const std::size_t begin = group * left.group;
    const std::size_t end = smaller(last - begin, left.group) + begin;
    while (i < end) {
      const std::size_t rows = next_tile_rows(kVectors, end - i);
      const T* a = left.data + group * left.group_step +
                   (i - begin) * (kReading == Reading::kByRow ? left.step : 1);
      const TileEnd<T> tile_end = block.end.at(i, j);
      if (panel.next != nullptr) {  // this tile's share of it
        const std::size_t share = (block.depth * rows + last - 1) / last;
        for (std::size_t p = 0; p < share && fetched < block.depth; ++p, ++fetched) {
          __builtin_prefetch(panel.next + fetched * panel.next_step, 0, 2);
          __builtin_prefetch(panel.next + fetched * panel.next_step + kTileCols<T> - 1, 0,
                             2);
        }
      }
      if (panel.copy == nullptr) {
        tile_kernel<T, kVectors, kReading>(rows)(block.depth, a, left.step, panel, cols,
                                                 tile_end);
      } else {
        tile_kernel<T, kVectors, Reading::kByDepthCopying>(rows)(
            block.depth, a, left.step, panel, cols, tile_end);
        panel.data = panel.copy, panel.step = kVectors * Lanes<T>::kCount,
        panel.copy = nullptr;
      }
      i += rows;
    }
  }
}

template <Reading kReading, class T>
void multiply_block(Block<T>& block) {
  constexpr std::size_t kCount = Lanes<T>::kCount;
  typename Lanes<T>::Vector squares = {};
  block.end.squares = block.squares == nullptr ? nullptr : &squares;
  for (std::size_t j = 0; j < block.columns; j += kTileCols<T>) {
    const std::size_t cols = smaller(kTileCols<T>, block.columns - j);
    Panel<T> panel = block.right;
    panel.data += j / kTileCols<T> * block.right_panel;
    if (panel.copy != nullptr && j + 2 * kTileCols<T> <= block.columns) {
      panel.next = panel.data + block.right_panel, panel.next_step = panel.step;
    }
    squares = typename Lanes<T>::Vector{};
    // rows above the diagonal's end in the first vector of columns, and in the second
    std::size_t both = block.rows, second = block.rows;
    if (block.symmetric) {
      const std::size_t diagonal = block.column + j;
      if (block.row >= diagonal + cols) continue;
      both = smaller(block.rows, diagonal + kCount > block.row
                                     ? diagonal + kCount - block.row
                                     : std::size_t{0});
      second = smaller(block.rows, diagonal + 2 * kCount - block.row);
    }
    if (cols <= kCount) {
      panel.copy = nullptr;
      multiply_rows<1, kReading>(block, 0, both, j, panel, cols);
    } else {
      multiply_rows<2, kReading>(block, 0, both, j, panel, cols);
      if (panel.copy != nullptr) panel = {panel.copy, kTileCols<T>};
      panel.data += kCount;
      multiply_rows<1, kReading>(block, both, second, j + kCount, panel, cols - kCount);
    }
    for (std::size_t l = 0; block.squares != nullptr && l < kCount; ++l) {
      *block.squares += squares[l];
    }
  }
}

// The lower triangle of a square block of kSide rows at most: out^T's.
constexpr std::size_t kSide = 8;
template <class T>
void mirror_triangle(T* out, std::size_t stride, std::size_t n) {
  for (std::size_t i = 1; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) out[i * stride + j] = out[j * stride + i];
  }
}

template <class T>
void mirror(T* out, std::size_t stride, std::size_t m) {
  constexpr std::size_t kBlock = 64;  // rows and columns stay within 64 pages
  for (std::size_t i0 = 0; i0 < m; i0 += kBlock) {
    const std::size_t rows = smaller(kBlock, m - i0);
    for (std::size_t j0 = 0; j0 < i0; j0 += kBlock) {
      for (std::size_t i = i0; i < i0 + rows; i += 16) {  // a cache line of floats
        transpose(out + j0 * stride + i, stride, kBlock, smaller(16, i0 + rows - i),
                  out + i * stride + j0, stride);
      }
    }
    for (std::size_t i = i0; i < i0 + rows; i += kSide) {
      const std::size_t side = smaller(kSide, i0 + rows - i);
      if (side == kSide) {
        for (std::size_t j = i0; j < i; j += kSide) {
          transpose_square(out + j * stride + i, stride, out + i * stride + j, stride);
        }
      } else {
        transpose(out + i0 * stride + i, stride, i - i0, side, out + i * stride + i0,
                  stride);
      }
      mirror_triangle(out + i * stride + i, stride, side);
    }
  }
}

// An empty sum: out = beta C.
template <class T>
void scale_only(const GemmCall<T>& call) {
  for (std::size_t i = 0; i < call.m; ++i) {
    for (std::size_t j = 0; j < call.n; ++j) {
      call.out[i * call.out_stride + j] =
          call.beta == T{0} ? T{0} : call.beta * call.c[i * call.c_stride + j];
    }
  }
}

template <class T>
T* aligned(T* x) {
  const auto address = reinterpret_cast<std::uintptr_t>(x);
  return reinterpret_cast<T*>((address + kGemmAlignment - 1) / kGemmAlignment *
                              kGemmAlignment);
}

// The parts of the scratch memory.
template <class T>
struct Packed {
  T *left, *right, *sums;
  explicit Packed(T* scratch)
      : left(aligned(scratch)),
        right(left + kGemmRows * kGemmDepth),
        sums(right + kGemmCols * kGemmDepth) {}
};

// Whether A is read where it lies: few enough rows and columns that packing would not
// pay.
template <class T>
bool reads_left_in_place(const GemmCall<T>& call) {
  return call.a_transposed && call.m <= kGemmInPlace && call.n <= kGemmInPlace;
}

// Whether B is: it must lie depth by depth and need no zeros beyond the last column. With
// one block of rows the first tile of a panel copies it, which costs nothing beside the
// multiply-adds.
template <class T>
bool reads_right_in_place(const GemmCall<T>& call) {
  return !call.b_transposed && call.m <= kGemmRows && call.n % Lanes<T>::kCount == 0;
}

template <class T>
void set_right(const GemmCall<T>& call, std::size_t p, const Packed<T>& packed,
               Block<T>& block) {
  if (reads_right_in_place(call)) {
    const bool by_row = !call.a_transposed && call.n <= kReadByRow;
    const bool near = call.m <= kRowsWithoutCopy && call.n <= kGemmInPlace;
    const bool copies = call.m > 8 && !near && !by_row;
    block.right = {call.b + p * call.b_stride + block.column, call.b_stride,
                   copies ? packed.right : nullptr};
    block.right_panel = kTileCols<T>;
    return;
  }
  if (call.b_transposed) {
    pack_rows(call.b + block.column * call.b_stride + p, call.b_stride, block.columns,
              block.depth, kTileCols<T>, packed.right);
  } else {
    pack_columns(call.b + p * call.b_stride + block.column, call.b_stride, block.columns,
                 block.depth, kTileCols<T>, packed.right);
  }
  block.right = {packed.right, kTileCols<T>};
  block.right_panel = kTileCols<T> * block.depth;
}

template <class T>
void set_left(const GemmCall<T>& call, std::size_t p, const Packed<T>& packed,
              Block<T>& block) {
  const bool gram =
      call.symmetric && call.b_transposed && call.a == call.b && call.n <= kGemmCols;
  if (gram) {  // the panels of B are A's too
    block.left = {packed.right + block.row / kTileCols<T> * kTileCols<T> * block.depth,
                  kTileCols<T>, kTileCols<T> * block.depth, kTileCols<T>, false};
    return;
  }
  if (reads_left_in_place(call)) {
    block.left = {call.a + p * call.a_stride + block.row, SIZE_MAX, 0, call.a_stride,
                  false};
    return;
  }
  if (!call.a_transposed && call.n <= kReadByRow) {
    block.left = {call.a + block.row * call.a_stride + p, SIZE_MAX, 0, call.a_stride,
                  true};
    return;
  }
  if (call.a_transposed) {
    pack_columns(call.a + p * call.a_stride + block.row, call.a_stride, block.rows,
                 block.depth, kTileRows, packed.left);
  } else {
    pack_rows(call.a + block.row * call.a_stride + p, call.a_stride, block.rows,
              block.depth, kTileRows, packed.left);
  }
  block.left = {packed.left, kTileRows, kTileRows * block.depth, kTileRows, false};
}

// One block of rows of a depth, into `end`.
template <class T>
void multiply_rows_of_block(const GemmCall<T>& call, std::size_t p,
                            const Packed<T>& packed, const TileEnd<T>& end,
                            Block<T>& block) {
  set_left(call, p, packed, block);
  block.end = end;
  if (block.left.by_row) {
    multiply_block<Reading::kByRow>(block);
  } else {
    multiply_block<Reading::kByDepth>(block);
  }
}

template <class T>
TileEnd<T> end_of(const GemmCall<T>& call, bool first) {
  TileEnd<T> end = {.alpha = call.alpha,
                    .beta = call.beta,
                    .c = call.beta == T{0} ? nullptr : call.c,
                    .c_stride = call.c_stride,
                    .out = call.out,
                    .out_stride = call.out_stride,
                    .far = call.squares != nullptr || call.n > kGemmInPlace};
  if (!first) end.beta = T{1}, end.c = call.out, end.c_stride = call.out_stride;
  return end;
}

template <class T>
void multiply_by_depths(const GemmCall<T>& call, const Packed<T>& packed) {
  Block<T> block = {.squares = call.squares, .symmetric = call.symmetric};
  for (; block.column < call.n; block.column += kGemmCols) {
    block.columns = smaller(kGemmCols, call.n - block.column);
    const std::size_t last_row = call.symmetric ? block.column + block.columns : call.m;
    for (std::size_t p = 0; p < call.k; p += kGemmDepth) {
      block.depth = smaller(kGemmDepth, call.k - p);
      set_right(call, p, packed, block);
      const TileEnd<T> end = end_of(call, p == 0);
      for (block.row = 0; block.row < last_row; block.row += kGemmRows) {
        block.rows = smaller(kGemmRows, last_row - block.row);
        multiply_rows_of_block(call, p, packed, end.at(block.row, block.column), block);
      }
    }
  }
}

// The same for products of several depths whose squares are wanted: sums are kept aside
// until they are complete.
template <class T>
void multiply_by_blocks(const GemmCall<T>& call, const Packed<T>& packed) {
  Block<T> block = {};
  for (; block.column < call.n; block.column += kGemmSumCols) {
    block.columns = smaller(kGemmSumCols, call.n - block.column);
    for (block.row = 0; block.row < call.m; block.row += kGemmRows) {
      block.rows = smaller(kGemmRows, call.m - block.row);
      for (std::size_t p = 0; p < call.k; p += kGemmDepth) {
        block.depth = smaller(kGemmDepth, call.k - p);
        const bool last = p + block.depth == call.k;
        TileEnd<T> end = {.alpha = T{1}, .out = packed.sums, .out_stride = kGemmSumCols};
        if (last) end = end_of(call, true).at(block.row, block.column);
        end.before = p == 0 ? nullptr : packed.sums;
        end.before_stride = kGemmSumCols;
        block.squares = last ? call.squares : nullptr;
        set_right(call, p, packed, block);
        multiply_rows_of_block(call, p, packed, end, block);
      }
    }
  }
}

template <class T>
void gemm_of(const GemmCall<T>& call) {
  if (call.squares != nullptr) *call.squares = 0.0;
  const Packed<T> packed(call.scratch);
  if (call.k == 0) {
    scale_only(call);
  } else if (call.squares != nullptr && call.k > kGemmDepth) {
    multiply_by_blocks(call, packed);
  } else {
    multiply_by_depths(call, packed);
  }
  if (call.symmetric) mirror(call.out, call.out_stride, call.m);
  if (call.mirrored != nullptr) {
    transpose(call.out, call.out_stride, call.m, call.n, call.mirrored, call.out_stride);
  }
}

}  // namespace

void gemm(const GemmCall<float>& call) { gemm_of(call); }
void gemm(const GemmCall<double>& call) { gemm_of(call); }

}  // namespace pion::PION_TARGET
