// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace pion::lab {

// Mean and half width of the two-sided 95 % confidence interval (Student t). Values that
// are not finite are left out. `mean` is NaN without values, `half_width` is NaN with
// fewer than two.
struct Interval {
  double mean, half_width, deviation;  // deviation: the sample's, divisor count - 1
  int count;
};
Interval confidence_interval(const std::vector<double>& values);

// Welch's interval of mean(a) - mean(b): variances may differ.
Interval welch_difference(const std::vector<double>& a, const std::vector<double>& b);

// P(T <= t) and its inverse for Student's t with `freedom` > 0 degrees of freedom; p in
// (0, 1).
double student_t_cdf(double t, double freedom);
double student_t_quantile(double p, double freedom);

// x and y of one run, equally long.
struct Curve {
  std::vector<double> x, y;
};

// Curves of several seeds on one grid. A seed counts only where it has data, so `count`
// says how many do; nothing is extrapolated.
struct Band {
  std::vector<double> x, mean, low, high;  // low, high: smallest and largest seed
  std::vector<int> count;
};

// At most `points` averages over consecutive entries; entries with x or y not finite are
// dropped.
Curve downsample(const Curve& curve, int points);

// Mean and range over curves. Curves with equal x keep it; others are interpolated
// linearly on `points` equal steps. `points` >= 2.
Band aggregate(const std::vector<Curve>& curves, int points);

}  // namespace pion::lab
