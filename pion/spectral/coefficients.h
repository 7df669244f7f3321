// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pion {

// An odd quintic p(s) = a s + b s^3 + c s^5, applied to singular values: one step of
// X <- a X + b (X X^T) X + c (X X^T)^2 X.
struct Quintic {
  double a = 0, b = 0, c = 0;
  double operator()(double s) const { return s * (a + s * s * (b + s * s * c)); }
};

using QuinticSequence = std::vector<Quintic>;

// The composition p_n(...p_1(s)).
double evaluate(const QuinticSequence& sequence, double s);

// Named Muon sequences and their sources; `steps` in [1, 64].
//   "classic"        (3.4445, -4.7750, 2.0315) repeated; K. Jordan et al. 2024
//   "quintic"        a different triple each step, last one repeated (per-step list)
//   "polar_express"  arXiv:2505.16932, safety 1.01; its input is divided by 1.01 more;
//                    from the eighth step on (1.875, -1.25, 0.375)
//   "cans"           arXiv:2506.10935, last one repeated; its input is divided by 1.01
//                    more, since it diverges from 1.0001 on (f = 3e4 there)
//   "cubic"          (1.5, -0.5, 0), the textbook Newton-Schulz iteration
// Throws std::invalid_argument that lists the names if `name` is none of them.
QuinticSequence muon_sequence(std::string_view name, int steps);
std::vector<std::string> muon_sequence_names();

// What the norm is multiplied by before the first step: 1.01 for "polar_express" and
// "cans", which diverge above 1, 1 for the others, which are safe up to 1.08.
double muon_norm_margin(std::string_view name);

// Pion as published (arXiv:2605.19282): `promotion_steps` times (1.875, -1.25, 0.375),
// then steps - promotion_steps times (0, 2.5, -1.5). 0 <= promotion_steps <= steps.
QuinticSequence high_pass_sequence(int promotion_steps, int steps);

// The one-parameter family p_a(s) = a s + (5/2 - 2a) s^3 + (a - 3/2) s^5, p(1) = 1, p'(1)
// = 0.
Quintic high_pass_quintic(double a);

// A high-pass whose unstable fixed point is `cutoff`, in (0, sqrt(2/3)]: singular values
// (relative to the norm) above it go to 1, below it to 0. Throws if `steps` cannot reach
// it, naming the smallest cutoff that it can.
QuinticSequence cutoff_sequence(double cutoff, int steps);
double smallest_cutoff(int steps);
// sqrt(2/3): no promotion at all
inline constexpr double kLargestCutoff = 0.816496580927726;

// edge_factor (1/sqrt(rows) + 1/sqrt(cols)): where white noise of that shape has its
// largest singular value, relative to its Frobenius norm (Marchenko-Pastur).
double noise_edge(std::int64_t rows, std::int64_t cols);

// The largest value that the sequence takes on [0, upper]. Exact up to rounding: the
// image of an interval under a continuous function is an interval, whose ends lie at
// critical points. Throws std::invalid_argument if a step takes a value of its interval
// below zero, which would turn the update uphill, or if a coefficient is not finite.
// `name` is for the message.
double largest_value(const QuinticSequence& sequence, double upper,
                     std::string_view name);

// Accepts the sequence for inputs in [0, upper]: throws what largest_value throws, and
// also if a value ends above kLargestOutput, that is, if the iteration diverges.
void check_sequence(const QuinticSequence& sequence, std::string_view name,
                    double upper = 1.0);
inline constexpr double kLargestOutput = 2.0;  // published maps reach 1.3 at most

}  // namespace pion
