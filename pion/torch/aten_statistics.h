// SPDX-License-Identifier: Apache-2.0
// Statistics of a step on other devices, as rows of one table that crosses once.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "pion/torch/aten_batch.h"

namespace pion {

// What one part of a head layout adds to the statistics, of every block, (count, heads):
// ||D||, sigma_1 relative to it, ||O||^2, <D, O>, and ||lr s O||^2.
struct BlockFigures {
  at::Tensor size, sigma, passed, inner, moved;
  double directions = 0;  // of one matrix
  double half_pass = 0;
};

// Rows of UpdateStatistics, one for every matrix of a piece's parameters, in the work
// type.
class StatisticsTable {
 public:
  // finite: (parameters) bool; active: (matrices, 1, 1) bool; undefined: all are.
  // `sizes` are the norms of the gradients, (matrices).
  void add(const Piece& piece, const at::Tensor& sizes, const at::Tensor& finite,
           const at::Tensor& active, std::span<const BlockFigures> parts);
  // Of an elementwise rule; `update` is (parameters, 1, entries).
  void add(const Piece& piece, const at::Tensor& gradients, const at::Tensor& finite,
           const at::Tensor& update);
  // Waits for the device and fills in the results of every step.
  void fill_results();

 private:
  std::vector<Piece> pieces_;
  std::vector<at::Tensor> rows_;  // (matrices of a piece, kColumns)
};

}  // namespace pion
