// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_map.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "pion/torch/aten_eigenvalue.h"
#include "pion/torch/aten_product.h"

namespace pion {
namespace {

constexpr std::int64_t kOfMatrix[] = {1, 2};

// to <- d scale. A CPU makes a copy of what it rounds: some rows of every block at a time.
void round_scaled(const at::Tensor& to, const at::Tensor& d, const at::Tensor& scale) {
  RECORD_FUNCTION("pion::round_scaled",
                  (std::vector<c10::IValue>{d, scale}));  // one operation elsewhere
  const std::int64_t rows = d.size(2), entries = d.numel() / rows;
  const std::int64_t most =
      d.is_cpu() ? std::max<std::int64_t>(1, (1 << 20) / entries) : rows;
  for (std::int64_t first = 0; first < rows; first += most) {
    const std::int64_t count = std::min(most, rows - first);
    at::Tensor part = to.narrow(2, first, count);
    at::mul_out(part, d.narrow(2, first, count), scale);
  }
}

// f32 as one or two 16-bit matrices that add up to it. Overwrites it.
std::vector<at::Tensor> split(const at::Tensor& value, at::ScalarType narrow) {
  const at::Tensor high = value.to(narrow);
  return {high, value.sub_(high).to(narrow)};
}

// x has Frobenius norm 1.
at::Tensor decomposed(const SpectralMap& map, const at::Tensor& x) {
  auto [u, s, vt] = at::linalg_svd(x, /*full_matrices=*/false);
  const double eps = x.scalar_type() == at::kDouble
                         ? std::numeric_limits<double>::epsilon()
                         : std::numeric_limits<float>::epsilon();
  const double zero = static_cast<double>(std::max(x.size(1), x.size(2))) * eps;
  at::Tensor keep = s > zero * s.narrow(1, 0, 1);
  if (map.kind == SpectralMap::Kind::kLowRank) {
    keep = keep & (at::arange(s.size(1), s.options().dtype(at::kLong)) < map.rank);
  } else {
    keep = keep & (s < map.cutoff);
  }
  return (u * keep.unsqueeze(1)).bmm(vt);
}

// a I + b A + c A^2
at::Tensor exact_quintic(const at::Tensor& gram, const Quintic& p) {
  const at::Tensor result =
      p.c == 0 ? gram * p.b : sum_product(gram, gram, gram, p.b, p.c);
  result.diagonal(0, 1, 2).add_(p.a);
  return result;
}

}  // namespace

AtenMap::AtenMap(const SpectralMap& map, const at::Tensor& d, const at::Tensor& size,
                 const at::Tensor& keep, bool clean)
    : map_(map), type_(d.scalar_type()), tall_(d.size(2) > d.size(3)) {
  at::ScalarType type = type_;
  double scale = 1;
  if (map.kind == SpectralMap::Kind::kPolynomial) {
    if (type == at::kFloat && map.precision != Precision::kF32) {
      form_ = &map_form(map, d.size(2), d.size(3));
      split_ = map.precision == Precision::kAccurate;
      type = product_type(d.device());
      scale = form_->steps.front().x_scale;
    }
    if (map.normalization == Normalization::kFrobenius) scale /= map.norm_margin;
  }
  at::Tensor kept = size > 0;
  if (keep.defined()) kept = kept.logical_and_(keep);
  x_ = at::empty({d.size(0) * d.size(1), d.size(2), d.size(3)}, d.options().dtype(type));
  round_scaled(x_.view(d.sizes()), d,
               at::where(kept, size.reciprocal().mul_(scale), 0));
  if (clean) {
    x_.view(d.sizes()).masked_fill_(kept.logical_not_(), 0);
  }
}

// X as (count heads, m, n), m <= n.
at::Tensor AtenMap::wide() const { return tall_ ? x_.mT() : x_; }

void AtenMap::finish() {
  if (done_) return;
  done_ = true;
  if (map_.kind != SpectralMap::Kind::kPolynomial) {
    x_ = decomposed(map_, x_);
    return;
  }
  if (map_.normalization == Normalization::kSpectral) normalize_spectrally();
  if (form_ == nullptr) {
    // from there on four products of (m x m) a step cost less than two of (m x m x n) and
    // one
    constexpr double kAspect = 1.5;
    const at::Tensor x = wide();
    if (static_cast<double>(x.size(2)) < kAspect * static_cast<double>(x.size(1))) {
      exactly();
    } else {
      exactly_in_gram_space();
    }
  } else if (form_->gram) {
    in_gram_space();
  } else {
    directly();
  }
}

void AtenMap::add_to(const at::Tensor& to, double beta, double alpha) {
  finish();
  if (last_.empty()) {
    const at::Tensor target = to;
    if (beta != 1) target.mul_(beta);
    target.add_(x_, alpha);
    return;
  }
  if (faded_.defined()) {
    // what is lost below fp16 is nothing beside `to`
    const at::Tensor scale = at::exp2(-faded_);
    for (at::Tensor& part : last_) part.mul_(scale);
    faded_.reset();
  }
  for (const at::Tensor& part : last_) {
    // of symmetric factors
    add_product(to, tall_ ? x_ : part, tall_ ? part : x_, beta, alpha * scale_);
    beta = 1;
  }
}

at::Tensor AtenMap::output() {
  finish();
  if (last_.empty()) return x_;
  at::Tensor result;
  for (const at::Tensor& part : last_) {
    const at::Tensor own = product(tall_ ? x_ : part, tall_ ? part : x_, type_);
    result = result.defined() ? result.add_(own) : own;
  }
  if (faded_.defined()) result.mul_(at::exp2(-faded_));
  return scale_ == 1 ? result : result.mul_(scale_);
}

// X scaled so that its largest singular value is that of its scale, over the margin.
void AtenMap::normalize_spectrally() {
  const at::Tensor sigma = aten_largest_singular_value(wide());
  const double wanted =
      (form_ == nullptr ? 1.0 : form_->steps.front().x_scale) / map_.norm_margin;
  x_.mul_(at::where(sigma > 0, sigma.reciprocal().mul_(wanted), 0));
}

// alpha a b of symmetric matrices that commute.
AtenMap::Parts AtenMap::times(const Parts& a, const Parts& b, double alpha) const {
  const at::ScalarType narrow = x_.scalar_type();
  if (!split_) return {product(a[0], b[0], narrow, alpha)};
  const at::Tensor total = product(a[0], b[0], at::kFloat, alpha);
  add_product(total, a[0], b[1], 1, alpha);
  add_product(total, a[1], b[0], 1, alpha);
  return split(total, narrow);
}

// A = X X^T by gram_scale.
AtenMap::Parts AtenMap::gram_of_x(const FormStep& step) const {
  const double alpha = step.gram_scale / (step.x_scale * step.x_scale);
  const at::Tensor x = wide();
  if (!split_) return {product(x, x.mT(), x.scalar_type(), alpha)};
  return split(product(x, x.mT(), at::kFloat, alpha), x.scalar_type());
}

// T = a I + b A + c A^2 by t_scale.
AtenMap::Parts AtenMap::quintic(const Parts& gram, const FormStep& step) const {
  const double t = step.t_scale, g = step.gram_scale;
  const double beta = step.p.b * t / g, alpha = step.p.c * t / (g * g);
  Parts result;
  if (!split_) {
    result = {step.p.c == 0 ? gram[0] * beta
                            : sum_product(gram[0], gram[0], gram[0], beta, alpha)};
    if (step.p.a != 0) result[0].diagonal(0, 1, 2).add_(step.p.a * t);
    return result;
  }
  const at::Tensor total = gram[0].to(at::kFloat).add_(gram[1]).mul_(beta);
  if (step.p.c != 0) {
    add_product(total, gram[0], gram[0], 1, alpha);
    add_product(total, gram[0], gram[1], 1, 2 * alpha);
  }
  if (step.p.a != 0) total.diagonal(0, 1, 2).add_(step.p.a * t);
  return split(total, x_.scalar_type());
}

// X <- alpha T X, rounded once.
void AtenMap::advance(const Parts& factor, double alpha) {
  const at::ScalarType narrow = x_.scalar_type();
  const auto times_x = [&](const at::Tensor& part, at::ScalarType type) {
    return product(tall_ ? x_ : part, tall_ ? part : x_, type, alpha);
  };
  if (factor.size() == 1) {
    x_ = times_x(factor[0], narrow);
    return;
  }
  const at::Tensor total = times_x(factor[0], at::kFloat);
  add_product(total, tall_ ? x_ : factor[1], tall_ ? factor[1] : x_, 1, alpha);
  x_ = total.to(narrow);
}

// Scales T up so that T X does not fall out of fp16; by which power of two, (batch, 1, 1).
at::Tensor AtenMap::unfade(const Parts& factor, const FormStep& step) const {
  // below this norm a suppressed matrix is scaled up to it; c A^2 counts for 2^-12 there,
  // so that it may keep the scale of b A
  constexpr double kFaded = 0x1p-6;
  constexpr double kLargestT = 0x1p15;  // Frobenius norm of T when it is scaled up
  const at::Tensor size =
      at::linalg_vector_norm(factor[0], 2, kOfMatrix, true, at::kFloat)
          .div_(step.t_scale);
  // ||T X|| <= ||T|| ||X||, ||X||^2 <= sqrt(m) ||A||, ||A|| <= ||T|| / slope
  const at::Tensor into =
      size.div(std::max(step.slope, 0x1p-4)).sqrt_().clamp_max_(step.into);
  const at::Tensor wanted = at::minimum(into.mul_(size).reciprocal_().mul_(kFaded),
                                        size.reciprocal().mul_(kLargestT / step.t_scale));
  const at::Tensor more = wanted.clamp_(1.0, 0x1p100).log2_().floor_();
  const at::Tensor scale = at::exp2(more);
  for (const at::Tensor& part : factor) part.mul_(scale);
  return more;
}

// X <- T X in every step.
void AtenMap::directly() {
  const std::vector<FormStep>& steps = form_->steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const FormStep& step = steps[i];
    Parts factor = quintic(gram_of_x(step), step);
    // T X is b A X there, of the third degree
    if (faded_.defined() && step.p.a == 0) faded_ = faded_ * 3;
    if (i + 1 == steps.size()) {
      last_ = std::move(factor);
      scale_ = 1 / (step.x_scale * step.t_scale);
      return;
    }
    if (form_->fades && step.p.a == 0) {
      const at::Tensor more = unfade(factor, step);
      faded_ = faded_.defined() ? faded_ + more : more;
    }
    advance(factor, steps[i + 1].x_scale / (step.x_scale * step.t_scale));
  }
}

void AtenMap::in_gram_space() {
  const std::vector<FormStep>& steps = form_->steps;
  for (const auto& [start, end] : form_->segments) {
    Parts q = multiplied_out(gram_of_x(steps[start]), start, end);
    const double total = steps[start].x_scale * steps[end - 1].q_scale;
    if (end == steps.size()) {
      last_ = std::move(q);
      scale_ = 1 / total;
      return;
    }
    advance(q, steps[end].x_scale / total);
  }
}

// Q = T_k ... T_1 of a segment, by its last q_scale.
AtenMap::Parts AtenMap::multiplied_out(Parts gram, std::size_t start,
                                       std::size_t end) const {
  Parts q;
  double before = 1;
  for (std::size_t i = start; i < end; ++i) {
    const FormStep& step = form_->steps[i];
    const Parts factor = quintic(gram, step);
    if (q.empty()) {
      q = factor;
      before = step.t_scale;
    } else {
      q = times(factor, q, step.q_scale / (step.t_scale * before));
      before = step.q_scale;
    }
    if (i + 1 == end) break;
    const Parts w =
        times(factor, gram, step.w_scale / (step.t_scale * step.gram_scale));
    gram = times(w, factor,
                 form_->steps[i + 1].gram_scale / (step.w_scale * step.t_scale));
  }
  const double wanted = form_->steps[end - 1].q_scale;
  if (before != wanted) {  // of one step
    for (const at::Tensor& part : q) part.mul_(wanted / before);
  }
  return q;
}

// In f32 or f64.
void AtenMap::exactly() {
  for (std::size_t i = 0; i < map_.sequence.size(); ++i) {
    const at::Tensor x = wide();
    const at::Tensor factor = exact_quintic(product(x, x.mT(), type_), map_.sequence[i]);
    if (i + 1 == map_.sequence.size()) {
      last_ = {factor};
      return;
    }
    x_ = product(tall_ ? x_ : factor, tall_ ? factor : x_, type_);
  }
}

void AtenMap::exactly_in_gram_space() {
  // A rounding error of A, 2^-24 (f64: 2^-53) of its norm, may grow by this much before A
  // is computed anew from X: to 6e-3 (1e-3). An eigenvalue near 0 grows by a^2 in a step.
  const double limit = type_ == at::kDouble ? 1e13 : 1e5;
  at::Tensor gram = product(wide(), wide().mT(), type_), q;
  double growth = 1;
  for (std::size_t i = 0; i < map_.sequence.size(); ++i) {
    const Quintic& p = map_.sequence[i];
    const at::Tensor factor = exact_quintic(gram, p);
    q = q.defined() ? product(factor, q, type_) : factor;
    if (i + 1 == map_.sequence.size()) break;
    growth *= std::max(p.a * p.a, 1.0);
    if (growth > limit) {
      x_ = product(tall_ ? x_ : q, tall_ ? q : x_, type_);
      gram = product(wide(), wide().mT(), type_);
      q.reset();
      growth = 1;
    } else {
      gram = product(product(factor, gram, type_), factor, type_);
    }
  }
  last_ = {q};
}

at::Tensor aten_spectral_map(const SpectralMap& map, const at::Tensor& x) {
  // the largest entry first, so that no square under- or overflows
  const at::Tensor largest = x.abs().amax(kOfMatrix, /*keepdim=*/true);
  const at::Tensor d = (x / at::where(largest > 0, largest, 1)).unsqueeze(1);
  const at::Tensor size = at::linalg_vector_norm(d, 2, at::IntArrayRef{2, 3}, true);
  return AtenMap(map, d, size, {}, false).output();
}

at::Tensor aten_relative_sigma(const at::Tensor& x) {
  const at::Tensor largest = x.abs().amax(kOfMatrix, /*keepdim=*/true);
  const at::Tensor scaled = x / at::where(largest > 0, largest, 1);
  const at::Tensor size = at::linalg_vector_norm(scaled, 2, kOfMatrix, true);
  const at::Tensor sigma = aten_largest_singular_value(
      scaled.size(1) > scaled.size(2) ? scaled.mT() : scaled);
  return at::where(size > 0, sigma / size, 0);
}

}  // namespace pion
