// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_map.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "pion/torch/aten_batch.h"
#include "pion/torch/aten_eigenvalue.h"
#include "pion/torch/aten_product.h"

namespace pion {
namespace {

// A slab of f32 columns is a sixteenth of what a step may take.
constexpr std::int64_t kSlabShare = 16 * sizeof(float);

constexpr std::int64_t kOfMatrix[] = {1, 2};

// Entries that are looked at at a time, where a CPU makes a copy of them.
constexpr std::int64_t kMixed = 1 << 16;

// Rows (dimension `dim`) of x at a time, so that what a CPU makes of them as it mixes
// types is small; other devices make nothing.
template <class Work>
void by_rows(const at::Tensor& x, std::int64_t dim, const Work& work) {
  const std::int64_t rows = x.size(dim);
  const std::int64_t most =
      x.is_cpu() ? std::max<std::int64_t>(1, kMixed * rows / x.numel()) : rows;
  for (std::int64_t first = 0; first < rows; first += most)
    work(first, std::min(most, rows - first));
}

// to <- d scale, (count, heads, rows, cols)
void round_scaled(const at::Tensor& to, const at::Tensor& d, const at::Tensor& scale) {
  RECORD_FUNCTION("pion::round_scaled", (std::vector<c10::IValue>{d, scale}));
  by_rows(d, 2, [&](std::int64_t first, std::int64_t count) {
    at::Tensor part = to.narrow(2, first, count);
    at::mul_out(part, d.narrow(2, first, count), scale);
  });
}

// x <- x scale of 16-bit (batch, rows, cols) by f32 (batch, 1, 1).
void rescale(const at::Tensor& x, const at::Tensor& scale) {
  RECORD_FUNCTION("pion::rescale_", (std::vector<c10::IValue>{x, scale}));
  by_rows(x, 1, [&](std::int64_t first, std::int64_t count) {
    x.narrow(1, first, count).mul_(scale);
  });
}

// Frobenius norms of 16-bit (batch, rows, cols) in f32, (batch, 1, 1).
at::Tensor narrow_norm(const at::Tensor& x) {
  RECORD_FUNCTION("pion::narrow_norm", (std::vector<c10::IValue>{x}));
  at::Tensor norm;
  by_rows(x, 1, [&](std::int64_t first, std::int64_t count) {
    const at::Tensor own = at::linalg_vector_norm(x.narrow(1, first, count), 2, kOfMatrix,
                                                  /*keepdim=*/true, at::kFloat);
    norm = norm.defined() ? at::hypot(norm, own) : own;
  });
  return norm;
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
  round_scaled(x_.view(d.sizes()), d, at::where(kept, size.reciprocal().mul_(scale), 0));
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
  if (takes_slabs()) {
    in_slabs();
  } else if (form_ == nullptr) {
    takes_gram_space() ? exactly_in_gram_space() : exactly();
  } else {
    takes_gram_space() ? in_gram_space() : directly();
  }
}

// Whether a step may take so many bytes an entry of X at a time, if f32; f64 ones twice.
bool AtenMap::fits(double bytes) const {
  const double width = type_ == at::kDouble ? 2 : 1,
               entries = static_cast<double>(x_.numel());
  return bytes * width * entries <=
         std::max(static_cast<double>(step_bytes()), 8 * width * entries);
}

// Gram space has up to five (m x m) matrices at a time beside X, four of fp16.
bool AtenMap::takes_gram_space() const {
  const at::Tensor x = wide();
  const double aspect = static_cast<double>(x.size(2)) / static_cast<double>(x.size(1));
  // from there on four products of (m x m) a step cost less than two of (m x m x n) and
  // one
  if (form_ == nullptr) return aspect >= 1.5;
  return form_->gram && (split_ || fits(2 + 8 / aspect));
}

bool AtenMap::takes_slabs() const {
  if (form_ != nullptr && !split_) return false;
  const at::Tensor x = wide();
  const double aspect = static_cast<double>(x.size(2)) / static_cast<double>(x.size(1));
  if (takes_gram_space()) return !fits(split_ ? 2 + 24 / aspect : 4 + 20 / aspect);
  return !fits(split_ ? 14 : 12);
}

void AtenMap::add_to(const at::Tensor& to, double beta, double alpha) {
  finish();
  if (last_.empty() || slabs_) {
    if (beta != 1) to.mul_(beta);
    return add_scaled(to.unsqueeze(1), {}, alpha);
  }
  if (faded_.defined()) {
    // what is lost below fp16 is nothing beside `to`
    const at::Tensor scale = at::exp2(-faded_);
    for (const at::Tensor& part : last_) rescale(part, scale);
    faded_.reset();
  }
  for (const at::Tensor& part : last_) {
    // of symmetric factors
    add_product(to, tall_ ? x_ : part, tall_ ? part : x_, beta, alpha * scale_);
    beta = 1;
  }
}

void AtenMap::add_scaled(const at::Tensor& to, const at::Tensor& factor, double alpha) {
  finish();
  const at::Tensor target = tall_ ? to.mT() : to;
  by_columns([&](std::int64_t first, std::int64_t count) {
    at::Tensor own = columns(first, count);
    if (factor.defined()) own = own * factor.view({-1, 1, 1});
    const at::Tensor part = target.narrow(3, first, count);
    part.add_(own.view(part.sizes()), alpha);
  });
}

at::Tensor AtenMap::squares() {
  finish();
  at::Tensor norm;
  by_columns([&](std::int64_t first, std::int64_t count) {
    const at::Tensor own = at::linalg_vector_norm(columns(first, count), 2, kOfMatrix);
    norm = norm.defined() ? at::hypot(norm, own) : own;
  });
  return norm.square_();
}

at::Tensor AtenMap::output() {
  finish();
  const at::Tensor result = at::empty(x_.sizes(), x_.options().dtype(type_));
  by_columns([&](std::int64_t first, std::int64_t count) {
    (tall_ ? result.mT() : result).narrow(2, first, count).copy_(columns(first, count));
  });
  return result;
}

// All columns of O at once, or a slab of them where a copy of all would be too large.
template <class Work>
void AtenMap::by_columns(const Work& work) const {
  const std::int64_t all = wide().size(2);
  // beside X, T and a weight that may be a copy
  const bool small = 24 * x_.numel() <= step_bytes();
  const std::int64_t most = slabs_ || !small ? slab_columns() : all;
  for (std::int64_t first = 0; first < all; first += most)
    work(first, std::min(most, all - first));
}

// Some columns of O (rows, where X is tall), (batch, m, count), in the type of d. Not to
// be written to.
at::Tensor AtenMap::columns(std::int64_t first, std::int64_t count) const {
  const at::Tensor x = wide().narrow(2, first, count);
  if (last_.empty()) return x;
  at::Tensor result;
  if (slabs_) {
    result = slab(slab_step_, first, count);
  } else {
    result = product(last_[0], x, type_);
    if (last_.size() > 1) add_product(result, last_[1], x, 1, 1);
  }
  if (faded_.defined()) result.mul_(at::exp2(-faded_));
  return scale_ == 1 ? result : result.mul_(scale_);
}

// X scaled so that its largest singular value is that of its scale, over the margin.
void AtenMap::normalize_spectrally() {
  const at::Tensor sigma = aten_largest_singular_value(wide());
  const double wanted =
      (form_ == nullptr ? 1.0 : form_->steps.front().x_scale) / map_.norm_margin;
  rescale(x_, at::where(sigma > 0, sigma.reciprocal().mul_(wanted), 0));
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

// Scales T up so that T X does not fall out of fp16; by which power of two, (batch, 1,
// 1).
at::Tensor AtenMap::unfade(const Parts& factor, const FormStep& step) const {
  // below this norm a suppressed matrix is scaled up to it; c A^2 counts for 2^-12 there,
  // so that it may keep the scale of b A
  constexpr double kFaded = 0x1p-6;
  constexpr double kLargestT = 0x1p15;  // Frobenius norm of T when it is scaled up
  const at::Tensor size = narrow_norm(factor[0]).div_(step.t_scale);
  // ||T X|| <= ||T|| ||X||, ||X||^2 <= sqrt(m) ||A||, ||A|| <= ||T|| / slope
  const at::Tensor into =
      size.div(std::max(step.slope, 0x1p-4)).sqrt_().clamp_max_(step.into);
  const at::Tensor wanted = at::minimum(into.mul_(size).reciprocal_().mul_(kFaded),
                                        size.reciprocal().mul_(kLargestT / step.t_scale));
  const at::Tensor more = wanted.clamp_(1.0, 0x1p100).log2_().floor_();
  const at::Tensor scale = at::exp2(more);
  for (const at::Tensor& part : factor) rescale(part, scale);
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
    const Parts w = times(factor, gram, step.w_scale / (step.t_scale * step.gram_scale));
    gram.clear();  // before the next is made
    gram =
        times(w, factor, form_->steps[i + 1].gram_scale / (step.w_scale * step.t_scale));
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

// Steps of kF32 and f64 have scales of 1.
void AtenMap::in_slabs() {
  slabs_ = true;
  for (std::size_t i = 0; i < map_.sequence.size(); ++i) {
    slab_step_ = form_ == nullptr ? FormStep{.p = map_.sequence[i]} : form_->steps[i];
    last_.clear();
    last_ = slab_gram(slab_step_);
    scale_ = 1 / slab_step_.x_scale;
    if (i + 1 == map_.sequence.size()) return;
    const double next = form_ == nullptr ? 1 : form_->steps[i + 1].x_scale * scale_;
    const std::int64_t columns = wide().size(2), most = slab_columns();
    for (std::int64_t first = 0; first < columns; first += most) {
      const std::int64_t count = std::min(most, columns - first);
      const at::Tensor moved = slab(slab_step_, first, count);
      wide().narrow(2, first, count).copy_(next == 1 ? moved : moved.mul_(next));
    }
  }
}

std::int64_t AtenMap::slab_columns() const {
  const at::Tensor x = wide();
  return std::max<std::int64_t>(1, step_bytes() / kSlabShare / (x.size(0) * x.size(1)));
}

// A by gram_scale.
AtenMap::Parts AtenMap::slab_gram(const FormStep& step) const {
  const at::Tensor x = wide();
  if (!split_) return {product(x, x.mT(), type_)};
  const std::vector<std::int64_t> sizes = {x.size(0), x.size(1), x.size(1)};
  const Parts result = {at::empty(sizes, x.options()), at::empty(sizes, x.options())};
  const double alpha = step.gram_scale / (step.x_scale * step.x_scale);
  const std::int64_t rows = x.size(1), most = slab_columns();
  for (std::int64_t first = 0; first < rows; first += most) {
    const std::int64_t count = std::min(most, rows - first);
    const Parts own = split(product(x.narrow(1, first, count), x.mT(), at::kFloat, alpha),
                            x.scalar_type());
    for (std::size_t i = 0; i < own.size(); ++i)
      result[i].narrow(1, first, count).copy_(own[i]);
  }
  return result;
}

// alpha A x for some columns, in f32 (f64).
at::Tensor AtenMap::times_slab(const Parts& gram, const at::Tensor& x,
                               double alpha) const {
  if (!split_) return product(gram[0], x, type_, alpha);
  if (x.scalar_type() == x_.scalar_type()) {
    const at::Tensor result = product(gram[0], x, type_, alpha);
    add_product(result, gram[1], x, 1, alpha);
    return result;
  }
  const Parts own = split(x.clone(), x_.scalar_type());
  const at::Tensor result = product(gram[0], own[0], type_, alpha);
  add_product(result, gram[0], own[1], 1, alpha);
  add_product(result, gram[1], own[0], 1, alpha);
  return result;
}

// Some columns of a X + b A X + c A A X, by x_scale.
at::Tensor AtenMap::slab(const FormStep& step, std::int64_t first,
                         std::int64_t count) const {
  const at::Tensor x = wide().narrow(2, first, count);
  const at::Tensor ax = times_slab(last_, x, 1 / step.gram_scale);
  const at::Tensor aax = times_slab(last_, ax, step.p.c / step.gram_scale);
  return aax.add_(ax, step.p.b).add_(x, step.p.a);
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
  const at::Tensor sigma =
      aten_largest_singular_value(scaled.size(1) > scaled.size(2) ? scaled.mT() : scaled);
  return at::where(size > 0, sigma / size, 0);
}

}  // namespace pion
