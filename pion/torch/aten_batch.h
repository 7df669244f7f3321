// SPDX-License-Identifier: Apache-2.0
// Parameters that are stepped together, and their tensors as one.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <utility>
#include <vector>

#include "pion/torch/parameter.h"

namespace pion {

// Bytes that a step allocates at most beside its state, or two f32 buffers of the largest
// matrix if those are more: 64 MiB.
std::int64_t step_bytes();

// Lowers them while it lives: for tests, in which small matrices are large ones then.
class LowerStepBytes {
 public:
  explicit LowerStepBytes(std::int64_t bytes);
  ~LowerStepBytes();
};

// Parameters of one group, shape, type and device, as many as are stepped together; or
// some matrices of one stack.
struct Piece {
  std::vector<ParameterStep*> steps;
  std::int64_t first = 0, count = 0;  // matrices of a stack; count 0: all of each

  const ParameterStep& front() const { return *steps.front(); }
  // What the piece holds of a parameter, its gradient or its state.
  at::Tensor part_of(const at::Tensor& tensor) const;
};

// Pieces within step_bytes(), or of one parameter.
std::vector<Piece> pieces(std::span<ParameterStep> steps);

// Matrices of that shape, or entries of an elementwise rule's (1 x 1), whose step takes
// no more than step_bytes() beside their state; at least 1.
std::int64_t most_at_once(const ParameterStep& step, std::int64_t rows,
                          std::int64_t cols);

// The matrices of the parameters of a piece: elementwise rules have one row each.
MatrixShape piece_shape(const Piece& piece);

// Tensors of one shape and type as one, (their number x count, rows, cols): a view of a
// single contiguous one of that type, else a copy, which scatter() writes back.
class Batch {
 public:
  Batch(std::vector<at::Tensor> tensors, const MatrixShape& shape, at::ScalarType type);
  void scatter() const;

  at::Tensor all;
  bool copied;

 private:
  std::vector<at::Tensor> tensors_;
};

// One part of a head layout in x (count, rows, cols).
struct LayoutPart {
  int axis;
  std::int64_t offset, size, heads;

  // Rows and columns of its blocks.
  std::pair<std::int64_t, std::int64_t> block(const MatrixShape& shape) const {
    return axis == 0 ? std::pair(size / heads, shape.cols)
                     : std::pair(shape.rows, size / heads);
  }
  // Its blocks as a view, (count, heads, rows, cols).
  at::Tensor cut(const at::Tensor& x) const;
};
std::vector<LayoutPart> layout_parts(const HeadLayout& layout, const MatrixShape& shape);

// x (a, b, rows, cols) as (a b, rows, cols) without a copy; undefined if strides forbid.
at::Tensor joined_view(const at::Tensor& x);

// The tensors of a piece, by member of the state.
std::vector<at::Tensor> state_tensors(const Piece& piece,
                                      torch::Tensor ParameterState::* member);
// A state's buffers of a piece, which are in the work type.
Batch work_state(const Piece& piece, torch::Tensor ParameterState::* member);
// The weights in the work type: master copies, where there are any, after what somebody
// else has written into the parameters since.
Batch work_weights(const Piece& piece);
// Writes them back: into master copies and, rounded, into parameters.
void write_weights(const Piece& piece, const Batch& weights);
// Gradients in the work type, negated under `maximize`, zeros for what is not finite
// under NonFinite::kZero.
Batch work_gradients(const Piece& piece);
// Counts the step: `finite` is (parameters) bool, undefined if all are.
void count_steps(const Piece& piece, const at::Tensor& finite);

// Whether torch's fused optimizers run on that device as this code expects them to:
// found_inf leaves everything as it was.
bool has_fused_steps(const at::Device& device);

}  // namespace pion
