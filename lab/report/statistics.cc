// SPDX-License-Identifier: Apache-2.0
#include "lab/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pion::lab {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Continued fraction of the incomplete beta function, evaluated by Lentz's method (NIST
// DLMF 8.17.22). Converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;  // replaces a zero denominator
  double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
  d = 1.0 / (std::abs(d) < kTiny ? kTiny : d);
  double value = d;
  for (int m = 1; m <= 500; ++m) {
    for (const bool even : {true, false}) {
      const double numerator =
          even ? m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
               : -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1.0 + numerator * d;
      c = 1.0 + numerator / c;
      d = 1.0 / (std::abs(d) < kTiny ? kTiny : d);
      c = std::abs(c) < kTiny ? kTiny : c;
      value *= c * d;
    }
    if (std::abs(c * d - 1.0) < 1e-15) break;
  }
  return value;
}

// Regularized incomplete beta function I_x(a, b).
double incomplete_beta(double a, double b, double x) {
  if (x <= 0.0) return 0.0;
  if (x >= 1.0) return 1.0;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1.0) / (a + b + 2.0)) return front * beta_fraction(a, b, x) / a;
  return 1.0 - front * beta_fraction(b, a, 1.0 - x) / b;
}

// Value of the curve at x by linear interpolation; NaN outside. curve.x ascends.
double value_at(const Curve& curve, double x) {
  if (curve.x.empty() || x < curve.x.front() || x > curve.x.back()) return kNan;
  const auto above = std::lower_bound(curve.x.begin(), curve.x.end(), x);
  const std::size_t i = above - curve.x.begin();
  if (*above == x || i == 0) return curve.y[i];
  const double t = (x - curve.x[i - 1]) / (curve.x[i] - curve.x[i - 1]);
  return curve.y[i - 1] + t * (curve.y[i] - curve.y[i - 1]);
}

std::vector<double> common_grid(const std::vector<Curve>& curves, int points) {
  const auto same_x = [&](const Curve& curve) { return curve.x == curves.front().x; };
  if (std::all_of(curves.begin(), curves.end(), same_x)) return curves.front().x;
  double first = std::numeric_limits<double>::infinity(), last = -first;
  for (const Curve& curve : curves) {
    if (curve.x.empty()) continue;
    first = std::min(first, curve.x.front());
    last = std::max(last, curve.x.back());
  }
  std::vector<double> grid;
  for (int i = 0; i < points && first <= last; ++i) {
    const double t = double(i) / (points - 1);
    grid.push_back(i + 1 == points ? last : first * (1.0 - t) + last * t);
  }
  return grid;
}

}  // namespace

Interval confidence_interval(const std::vector<double>& values) {
  double sum = 0.0, squares = 0.0;
  int count = 0;
  for (const double value : values) {
    if (std::isfinite(value)) sum += value, ++count;
  }
  if (count == 0) return {kNan, kNan, kNan, 0};
  const double mean = sum / count;
  if (count == 1) return {mean, kNan, kNan, 1};
  for (const double value : values) {
    if (std::isfinite(value)) squares += (value - mean) * (value - mean);
  }
  const double deviation = std::sqrt(squares / (count - 1));
  const double t = student_t_quantile(0.975, count - 1);
  return {mean, t * deviation / std::sqrt(double(count)), deviation, count};
}

Interval welch_difference(const std::vector<double>& a, const std::vector<double>& b) {
  const Interval x = confidence_interval(a), y = confidence_interval(b);
  const int count = std::min(x.count, y.count);
  if (count < 2) return {x.mean - y.mean, kNan, kNan, count};
  const double u = x.deviation * x.deviation / x.count;
  const double v = y.deviation * y.deviation / y.count;
  const double error = std::sqrt(u + v);
  if (error == 0.0) return {x.mean - y.mean, 0.0, 0.0, count};
  // Welch-Satterthwaite degrees of freedom
  const double freedom =
      (u + v) * (u + v) / (u * u / (x.count - 1) + v * v / (y.count - 1));
  return {x.mean - y.mean, student_t_quantile(0.975, freedom) * error, error, count};
}

double student_t_cdf(double t, double freedom) {
  if (std::isinf(t)) return t > 0 ? 1.0 : 0.0;
  const double tail =
      0.5 * incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t));
  return t > 0 ? 1.0 - tail : tail;
}

double student_t_quantile(double p, double freedom) {
  double low = -1.0, high = 1.0;
  while (student_t_cdf(low, freedom) > p && low > -1e12) low *= 2.0;
  while (student_t_cdf(high, freedom) < p && high < 1e12) high *= 2.0;
  for (int i = 0; i < 200 && high - low > 1e-12 * std::max(1.0, std::abs(low)); ++i) {
    const double middle = 0.5 * (low + high);
    (student_t_cdf(middle, freedom) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

Curve downsample(const Curve& curve, int points) {
  Curve finite, result;
  for (std::size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i) {
    if (!std::isfinite(curve.x[i]) || !std::isfinite(curve.y[i])) continue;
    // a resumed run repeats steps: what came last holds
    while (!finite.x.empty() && finite.x.back() >= curve.x[i]) {
      finite.x.pop_back(), finite.y.pop_back();
    }
    finite.x.push_back(curve.x[i]), finite.y.push_back(curve.y[i]);
  }
  const std::size_t count = finite.x.size(), bins = std::max(points, 1);
  if (count <= bins) return finite;
  for (std::size_t bin = 0; bin < bins; ++bin) {
    const std::size_t begin = bin * count / bins, end = (bin + 1) * count / bins;
    double x = 0.0, y = 0.0;  // running means: sums of huge values could overflow
    for (std::size_t i = begin; i < end; ++i) {
      x += (finite.x[i] - x) / double(i - begin + 1);
      y += (finite.y[i] - y) / double(i - begin + 1);
    }
    result.x.push_back(x), result.y.push_back(y);
  }
  return result;
}

Band aggregate(const std::vector<Curve>& curves, int points) {
  Band band;
  if (curves.empty()) return band;
  for (const double x : common_grid(curves, points)) {
    double sum = 0.0, low = std::numeric_limits<double>::infinity(), high = -low;
    int count = 0;
    for (const Curve& curve : curves) {
      const double y = value_at(curve, x);
      if (!std::isfinite(y)) continue;
      sum += y, ++count;
      low = std::min(low, y), high = std::max(high, y);
    }
    if (count == 0) continue;
    band.x.push_back(x), band.mean.push_back(sum / count), band.count.push_back(count);
    band.low.push_back(low), band.high.push_back(high);
  }
  return band;
}

}  // namespace pion::lab
