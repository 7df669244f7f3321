// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pion/spectral/map_form.h"
#include "pion/spectral/spectral_map.h"

namespace pion {

// A spectral map of a batch of blocks by ATen operations, in two halves, so that the
// memory of the input is free before the second: the constructor reads the blocks,
// add_to() writes what becomes of them.
//
// kFast multiplies fp16 matrices with sums in f32; X, A, T and Q (see map_form.h) are
// kept in fp16, each times a power of two that keeps it in range. Those are known
// beforehand, but for filters that suppress a whole matrix: there the scale follows the
// norm, on the device. kAccurate keeps A, T and Q as two fp16 matrices each, high and
// low, and multiplies them in three products. kF32 and f64 round nothing. Nothing here
// waits for the device, except for the maps by decomposition.
class AtenMap {
 public:
  // d: (count, heads, rows, cols), f32 or f64, of any strides. `size` is the Frobenius
  // norm of every block, (count, heads, 1, 1). Blocks whose `keep`, broadcast to that, is
  // false give zeros, as do those of norm 0; keep undefined: all are kept. `clean`:
  // blocks that are not kept may hold NaN or Inf.
  AtenMap(const SpectralMap& map, const at::Tensor& d, const at::Tensor& size,
          const at::Tensor& keep, bool clean);

  // to <- beta to + alpha O, once; `to` is (count heads, rows, cols), in the type of d,
  // of any strides.
  void add_to(const at::Tensor& to, double beta, double alpha);
  // to <- to + alpha factor O; `to` is (count, heads, rows, cols), `factor` has the size
  // of one number a block or is undefined.
  void add_scaled(const at::Tensor& to, const at::Tensor& factor, double alpha);
  // ||O||_F^2, (count heads), and O, (count heads, rows, cols), in the type of d; before
  // add_to().
  at::Tensor squares();
  at::Tensor output();

 private:
  using Parts = std::vector<at::Tensor>;  // high, and low under kAccurate

  void finish();
  void normalize_spectrally();
  void in_gram_space();
  void directly();
  void exactly();
  void exactly_in_gram_space();
  at::Tensor wide() const;
  Parts gram_of_x(const FormStep& step) const;
  Parts quintic(const Parts& gram, const FormStep& step) const;
  Parts times(const Parts& a, const Parts& b, double alpha) const;
  Parts multiplied_out(Parts gram, std::size_t start, std::size_t end) const;
  void advance(const Parts& factor, double alpha);
  at::Tensor unfade(const Parts& factor, const FormStep& step) const;

  // Where two buffers of X must do (kF32, kAccurate of a large matrix) X goes through a
  // step some columns at a time: a X + (b + c A)(A X).
  bool fits(double bytes) const;
  bool takes_gram_space() const;
  bool takes_slabs() const;
  template <class Work>
  void by_columns(const Work& work) const;
  at::Tensor columns(std::int64_t first, std::int64_t count) const;
  void in_slabs();
  Parts slab_gram(const FormStep& step) const;
  at::Tensor slab(const FormStep& step, std::int64_t first, std::int64_t count) const;
  at::Tensor times_slab(const Parts& gram, const at::Tensor& x, double alpha) const;
  std::int64_t slab_columns() const;

  SpectralMap map_;
  const MapForm* form_ = nullptr;  // of 16-bit products
  at::ScalarType type_;            // of d
  bool tall_;
  bool split_ = false;
  at::Tensor x_;  // (count heads, rows, cols)
  bool done_ = false;
  Parts last_;  // then O = scale_ / 2^faded_ last_ x_; empty: O = x_
  double scale_ = 1;
  at::Tensor faded_;  // (count heads, 1, 1); undefined: 0
  bool slabs_ = false;
  FormStep slab_step_;  // the last, of slabs: `last_` is A
};

// apply_spectral_map by ATen operations: x and the result are (batch, rows, cols), f32 or
// f64.
at::Tensor aten_spectral_map(const SpectralMap& map, const at::Tensor& x);

// Largest singular value of every matrix of x relative to its Frobenius norm, (batch, 1,
// 1); 0 for a zero matrix. At most 0.4 % too small up to 4096 rows.
at::Tensor aten_relative_sigma(const at::Tensor& x);

}  // namespace pion
