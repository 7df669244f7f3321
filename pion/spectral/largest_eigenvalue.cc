// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/largest_eigenvalue.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>

namespace pion {

namespace {

// SplitMix64 (Steele, Lea & Flood 2014) to a uniform number in (0, 1].
double uniform(std::uint64_t counter) {
  std::uint64_t z = (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>(((z ^ (z >> 31)) >> 11) + 1) * 0x1p-53;
}

double dot(std::span<const double> x, std::span<const double> y) {
  double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;  // four chains hide the add latency
  std::size_t i = 0;
  for (; i + 4 <= x.size(); i += 4) {
    s0 += x[i] * y[i], s1 += x[i + 1] * y[i + 1];
    s2 += x[i + 2] * y[i + 2], s3 += x[i + 3] * y[i + 3];
  }
  for (; i < x.size(); ++i) s0 += x[i] * y[i];
  return (s0 + s1) + (s2 + s3);
}

void add_multiple(std::span<double> x, double factor, std::span<const double> y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += factor * y[i];
}

void scale(std::span<double> x, double factor) {
  for (double& value : x) value *= factor;
}

// Independent normals (Box-Muller), normalized: uniform on the sphere.
void random_direction(std::span<double> x) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double radius = std::sqrt(-2.0 * std::log(uniform(2 * i)));
    x[i] = radius * std::cos(2.0 * std::numbers::pi * uniform(2 * i + 1));
  }
  scale(x, 1.0 / std::sqrt(dot(x, x)));
}

// to = A x, by rows: A is symmetric, so column sums are row sums.
template <class T>
void multiply(MatrixViewOf<const T> a, std::span<const double> x, std::span<double> to) {
  std::fill(to.begin(), to.end(), 0.0);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const T* row = a.row(i);
    const double factor = x[i];
    for (std::size_t j = 0; j < to.size(); ++j)
      to[j] += factor * static_cast<double>(row[j]);
  }
}

// Are there eigenvalues of the tridiagonal matrix above `bound`? (Sturm count by the
// signs of the pivots of T - bound I.)
bool exceeds(std::span<const double> diagonal, std::span<const double> off,
             double bound) {
  double pivot = 1.0;
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    const double coupling = i == 0 ? 0.0 : off[i - 1] * off[i - 1] / pivot;
    pivot = diagonal[i] - bound - coupling;
    if (pivot >= 0.0) return true;
  }
  return false;
}

// Largest eigenvalue of a symmetric tridiagonal matrix by bisection to the last bit.
double largest_of_tridiagonal(std::span<const double> diagonal,
                              std::span<const double> off) {
  double low = diagonal[0], high = low;
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    const double left = i == 0 ? 0.0 : off[i - 1];
    const double right = i + 1 == diagonal.size() ? 0.0 : off[i];
    low = std::max(low, diagonal[i]);
    high = std::max(high, diagonal[i] + left + right);  // Gershgorin; off >= 0
  }
  for (double middle = 0.5 * (low + high); middle > low && middle < high;
       middle = 0.5 * (low + high)) {
    (exceeds(diagonal, off, middle) ? low : high) = middle;
  }
  return high;
}

}  // namespace

template <class T>
double largest_eigenvalue(MatrixViewOf<const T> a, int most_steps,
                          LanczosScratch& scratch) {
  if (a.rows == 0) return 0.0;
  const auto m = static_cast<std::size_t>(a.rows);
  const std::size_t most = std::min(m, static_cast<std::size_t>(most_steps));
  const std::span<double> basis = scratch.basis.at_least((most + 1) * m);
  const std::span<double> diagonal = scratch.tridiagonal.at_least(2 * most).first(most);
  const std::span<double> off = scratch.tridiagonal.at_least(2 * most).subspan(most);
  const auto vector = [&](std::size_t i) { return basis.subspan(i * m, m); };

  random_direction(vector(0));
  double size = 0.0;  // of A, from below
  std::size_t steps = 0;
  while (steps < most) {
    const std::span<double> next = vector(steps + 1);
    multiply(a, vector(steps), next);
    diagonal[steps] = dot(vector(steps), next);
    size = std::max(size, std::sqrt(dot(next, next)));
    // against all earlier vectors, twice: once loses orthogonality when `next` is small
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t i = 0; i <= steps; ++i) {
        add_multiple(next, -dot(next, vector(i)), vector(i));
      }
    }
    off[steps] = std::sqrt(dot(next, next));
    ++steps;
    // an invariant subspace: it holds every eigenvalue that the start has a component of
    if (off[steps - 1] <= 1e-15 * size) break;
    scale(next, 1.0 / off[steps - 1]);
  }
  return std::max(0.0, largest_of_tridiagonal(diagonal.first(steps), off.first(steps)));
}

template double largest_eigenvalue<float>(ConstMatrixView, int, LanczosScratch&);
template double largest_eigenvalue<double>(MatrixViewOf<const double>, int,
                                           LanczosScratch&);

}  // namespace pion
