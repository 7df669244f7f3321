// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/map_form.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

namespace pion {
namespace {

// As in tile_policy.cc: the last three steps of "polar_express" have 12.9 without the very
// last, two steps of Muon 11.9 and three 40.9; those of "cans", 13.02, are further off in
// one segment than bf16 code.
constexpr double kSegmentGrowth = 13;
// Below this aspect Gram space would save less than a tenth, and squares of Polar Express
// are as far off in it as in direct bf16 code.
constexpr double kGramAspect = 1.25;
constexpr double kTop = 0x1p15;  // entries in fp16, which ends at 65504: room for twice
constexpr double kLeast = 0x1p-14;  // below it fp16 has fewer bits
constexpr int kPoints = 512;        // at which the polynomials are looked at

using Values = std::vector<double>;

double largest_magnitude(const Values& values) {
  double largest = 0x1p-40;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// The largest power of two that is no more.
double power_of_two(double value) { return std::exp2(std::floor(std::log2(value))); }

// T on the singular value s.
double factor(const Quintic& p, double s) { return p.a + s * s * (p.b + s * s * p.c); }

// The values of X and Q before a step, of T, and after it.
struct Grid {
  Values x, q, t;

  FormStep pass(const Quintic& p) {
    FormStep step{.p = p, .into = largest_magnitude(x)};
    Values w;
    t.clear();
    step.slope = INFINITY;
    for (std::size_t i = 0; i < x.size(); ++i) {
      t.push_back(factor(p, x[i]));
      w.push_back(t[i] * x[i] * x[i]);
      step.slope = std::min(step.slope, p.b + p.c * x[i] * x[i]);
      x[i] *= t[i], q[i] *= t[i];
    }
    step.x_scale = std::min(0x1p7, power_of_two(std::sqrt(kTop) / step.into));
    step.gram_scale = std::min(0x1p14, power_of_two(kTop / (step.into * step.into)));
    step.t_scale = power_of_two(kTop / largest_magnitude(t));
    step.q_scale = power_of_two(kTop / largest_magnitude(q));
    step.w_scale = power_of_two(kTop / largest_magnitude(w));
    return step;
  }
};

// The last segment is as long as it may be.
std::vector<std::pair<std::size_t, std::size_t>> form_segments(
    const QuinticSequence& sequence) {
  std::vector<std::pair<std::size_t, std::size_t>> segments;
  for (std::size_t end = sequence.size(); end > 0;) {
    std::size_t start = end - 1;
    double growth = 1;
    while (start > 0) {
      growth *= std::max(std::abs(sequence[start - 1].a), 1.0);
      if (growth > kSegmentGrowth) break;
      --start;
    }
    segments.emplace_back(start, end);
    end = start;
  }
  std::reverse(segments.begin(), segments.end());
  return segments;
}

// Whether Q or T A of a matrix whose singular values are all `flat` fall below fp16.
bool loses_bits(const MapForm& form, double flat, double m, double n) {
  double q = 1;
  std::set<std::size_t> starts;
  for (const auto& [start, end] : form.segments) starts.insert(start);
  for (std::size_t i = 0; i < form.steps.size(); ++i) {
    const FormStep& step = form.steps[i];
    const double t = std::abs(factor(step.p, flat));
    q = starts.count(i) > 0 ? t : q * t;
    if (step.q_scale * q < kLeast * std::sqrt(m)) return true;
    if (step.w_scale * t * flat * flat < kLeast * std::sqrt(n)) return true;
    flat *= t;
  }
  return false;
}

// Of a symmetric product that costs so much of a whole one, 1 or 1/2.
bool is_less_work(const MapForm& form, double symmetric) {
  // X X^T, and T X or Q X
  const double wide = form.aspect * (symmetric + 1);
  double gram = 0;
  for (const auto& [start, end] : form.segments)
    gram += wide + symmetric * (4 * static_cast<double>(end - start) - 3);
  return gram < static_cast<double>(form.steps.size()) * (wide + symmetric);
}

MapForm make_form(const SpectralMap& map, std::int64_t rows, std::int64_t cols) {
  const auto m = static_cast<double>(std::min(rows, cols)),
             n = static_cast<double>(std::max(rows, cols));
  const bool spectral = map.normalization == Normalization::kSpectral;
  // a spectral norm may be estimated .4 % low
  const double top = (spectral ? 1.004 : 1.0) / map.norm_margin;
  MapForm form{.aspect = n / m};
  form.segments = form_segments(map.sequence);
  std::set<std::size_t> ends;
  for (const auto& [start, end] : form.segments) ends.insert(end);
  Grid grid;
  for (int i = 0; i <= kPoints; ++i) grid.x.push_back(top * i / kPoints);
  grid.q.assign(grid.x.size(), 1.0);
  const double alike = spectral ? top : top / std::sqrt(m);
  double flat = alike;
  for (std::size_t i = 0; i < map.sequence.size(); ++i) {
    form.steps.push_back(grid.pass(map.sequence[i]));
    const FormStep& step = form.steps.back();
    if (step.gram_scale * flat * flat < kLeast * std::sqrt(n)) form.fades = true;
    flat *= std::abs(factor(step.p, flat));
    if (ends.count(i + 1) > 0) grid.q.assign(grid.x.size(), 1.0);
  }
  const bool fits =
      form.aspect >= kGramAspect && !form.fades && !loses_bits(form, alike, m, n);
  form.gram = fits && is_less_work(form, 1);
  form.gram_by_halves = fits && is_less_work(form, 0.5);
  return form;
}

}  // namespace

const MapForm& map_form(const SpectralMap& map, std::int64_t rows, std::int64_t cols) {
  using Key = std::tuple<std::int64_t, std::int64_t, Normalization, double, Values>;
  thread_local std::map<Key, MapForm> forms;
  Values coefficients;
  for (const Quintic& p : map.sequence)
    coefficients.insert(coefficients.end(), {p.a, p.b, p.c});
  Key key(rows, cols, map.normalization, map.norm_margin, std::move(coefficients));
  const auto found = forms.find(key);
  if (found != forms.end()) return found->second;
  constexpr std::size_t kMost = 4096;
  if (forms.size() >= kMost) forms.clear();
  return forms.emplace(std::move(key), make_form(map, rows, cols)).first->second;
}

}  // namespace pion
