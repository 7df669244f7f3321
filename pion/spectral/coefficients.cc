// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/coefficients.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <span>
#include <sstream>
#include <stdexcept>

namespace pion {

namespace {

constexpr Quintic kPromotion = {1.875, -1.25, 0.375};  // arXiv:2605.19282
constexpr Quintic kSuppression = {0.0, 2.5, -1.5};     // arXiv:2605.19282
constexpr double kPolarExpressSafety = 1.01;           // arXiv:2505.16932
constexpr int kMostSteps = 64;

// K. Jordan et al., kellerjordan.github.io/posts/muon
constexpr Quintic kClassic[] = {{3.4445, -4.7750, 2.0315}};

// J. You, as used by microsoft/dion
constexpr Quintic kQuintic[] = {{4.0848, -6.8946, 2.9270},
                                {3.9505, -6.3029, 2.6377},
                                {3.7418, -5.5913, 2.3037},
                                {2.8769, -3.1427, 1.2046},
                                {2.8366, -3.0525, 1.2012}};

// arXiv:2506.10935, rounded to 4 decimals as NeMo ships it
constexpr Quintic kCans[] = {{8.4703, -25.1081, 18.6293},
                             {4.1828, -3.1087, 0.5806},
                             {3.9619, -2.9541, 0.5630},
                             {3.2866, -2.4647, 0.5074},
                             {2.2737, -1.6447, 0.4162}};

constexpr Quintic kCubic[] = {{1.5, -0.5, 0.0}};

// arXiv:2505.16932 before the safety factor; after the seventh kPromotion for ever
constexpr Quintic kPolarExpress[] = {
    {8.28721201814563, -23.595886519098837, 17.300387312530933},
    {4.107059111542203, -2.9478499167379106, 0.5448431082926601},
    {3.9486908534822946, -2.908902115962949, 0.5518191394370137},
    {3.3184196573706015, -2.488488024314874, 0.51004894012372},
    {2.300652019954817, -1.6689039845747493, 0.4188073119525673},
    {1.891301407787398, -1.2679958271945868, 0.37680408948524835},
    {1.8750014808534479, -1.2500016453999487, 0.3750001645474248}};

struct NamedSequence {
  std::string_view name;
  std::span<const Quintic> steps;
};
constexpr NamedSequence kMuonSequences[] = {{"classic", kClassic},
                                            {"quintic", kQuintic},
                                            {"polar_express", kPolarExpress},
                                            {"cans", kCans},
                                            {"cubic", kCubic}};

std::string number(double value) {
  std::ostringstream text;
  text.precision(17);
  text << value;
  return text.str();
}

void require_steps(const char* function, int steps) {
  if (steps >= 1 && steps <= kMostSteps) return;
  throw std::invalid_argument(std::string(function) + ": steps must be in [1, " +
                              std::to_string(kMostSteps) + "], got " +
                              std::to_string(steps));
}

// Divides the argument of p by `safety`.
Quintic relaxed(const Quintic& p, double safety) {
  const double cubed = safety * safety * safety;
  return {p.a / safety, p.b / cubed, p.c / (cubed * safety * safety)};
}

struct Interval {
  double low, high;
};

// The image of [0, upper] under p: p at the ends and at the zeros of p' = a + 3b x + 5c
// x^2, x = s^2, that lie inside.
Interval image(const Quintic& p, double upper) {
  Interval result = {std::min(0.0, p(upper)), std::max(0.0, p(upper))};
  double squares[2] = {-1.0, -1.0};
  if (p.c != 0.0) {
    const double discriminant = 9.0 * p.b * p.b - 20.0 * p.a * p.c;
    if (discriminant >= 0.0) {
      // the root without cancellation first, the other one from their product a / (5c)
      const double q = -0.5 * (3.0 * p.b + std::copysign(std::sqrt(discriminant), p.b));
      squares[0] = q / (5.0 * p.c);
      if (q != 0.0) squares[1] = p.a / q;
    }
  } else if (p.b != 0.0) {
    squares[0] = -p.a / (3.0 * p.b);
  }
  for (const double square : squares) {
    if (!(square > 0.0) || square > upper * upper) continue;
    const double value = p(std::sqrt(square));
    result.low = std::min(result.low, value);
    result.high = std::max(result.high, value);
  }
  return result;
}

}  // namespace

double evaluate(const QuinticSequence& sequence, double s) {
  for (const Quintic& p : sequence) s = p(s);
  return s;
}

QuinticSequence muon_sequence(std::string_view name, int steps) {
  require_steps("muon_sequence", steps);
  const auto* found = std::find_if(
      std::begin(kMuonSequences), std::end(kMuonSequences),
      [name](const NamedSequence& candidate) { return candidate.name == name; });
  if (found == std::end(kMuonSequences)) {
    std::string names;
    for (const NamedSequence& known : kMuonSequences) {
      names += (names.empty() ? "" : ", ") + std::string(known.name);
    }
    throw std::invalid_argument("muon_sequence: name must be one of " + names +
                                ", got \"" + std::string(name) + "\"");
  }
  const bool polar_express = name == "polar_express";
  QuinticSequence sequence;
  for (int i = 0; i < steps; ++i) {
    const bool listed = i < static_cast<int>(found->steps.size());
    const Quintic& p = listed ? found->steps[i] : found->steps.back();
    if (!polar_express) {
      sequence.push_back(p);
    } else {
      sequence.push_back(listed ? relaxed(p, kPolarExpressSafety) : kPromotion);
    }
  }
  return sequence;
}

std::vector<std::string> muon_sequence_names() {
  std::vector<std::string> names;
  for (const NamedSequence& known : kMuonSequences) names.emplace_back(known.name);
  return names;
}

double muon_norm_margin(std::string_view name) {
  muon_sequence(name, 1);  // throws for an unknown name
  return name == "polar_express" || name == "cans" ? 1.01 : 1.0;
}

QuinticSequence high_pass_sequence(int promotion_steps, int steps) {
  require_steps("high_pass_sequence", steps);
  if (promotion_steps < 0 || promotion_steps > steps) {
    throw std::invalid_argument(
        "high_pass_sequence: promotion_steps must be in [0, steps = " +
        std::to_string(steps) + "], got " + std::to_string(promotion_steps));
  }
  QuinticSequence sequence(steps, kSuppression);
  std::fill_n(sequence.begin(), promotion_steps, kPromotion);
  return sequence;
}

Quintic high_pass_quintic(double a) { return {a, 2.5 - 2.0 * a, a - 1.5}; }

double smallest_cutoff(int steps) {
  require_steps("smallest_cutoff", steps);
  const QuinticSequence promotions(steps, kPromotion);
  // promotion is increasing: bisect to the last bit, keep the end that reaches sqrt(2/3)
  double low = 0.0, high = kLargestCutoff;
  for (double middle = 0.5 * (low + high); middle > low && middle < high;
       middle = 0.5 * (low + high)) {
    (evaluate(promotions, middle) >= kLargestCutoff ? high : low) = middle;
  }
  return high;
}

QuinticSequence cutoff_sequence(double cutoff, int steps) {
  const double smallest = smallest_cutoff(steps);
  if (!(cutoff >= smallest && cutoff <= kLargestCutoff)) {
    throw std::invalid_argument("cutoff_sequence: cutoff must be in [" +
                                number(smallest) + ", " + number(kLargestCutoff) +
                                "] with " + std::to_string(steps) + " steps, got " +
                                number(cutoff) + "; more steps reach smaller cutoffs");
  }
  QuinticSequence sequence;
  double t = cutoff;  // its image so far
  while (kPromotion(t) < kLargestCutoff) {
    sequence.push_back(kPromotion);
    t = kPromotion(t);
  }
  // p_a(t) = sqrt(2/3): p_a(s) = a s (1 - s^2)^2 + 2.5 s^3 - 1.5 s^5
  const double square = t * t, gap = 1.0 - square;
  const double a = (kLargestCutoff - kSuppression(t)) / (t * gap * gap);
  sequence.push_back(
      high_pass_quintic(std::max(a, 0.0)));  // -1e-17 at the largest cutoff
  sequence.resize(steps, kSuppression);
  return sequence;
}

double noise_edge(std::int64_t rows, std::int64_t cols) {
  if (rows < 1 || cols < 1) {
    throw std::invalid_argument("noise_edge: rows and cols must be > 0, got " +
                                std::to_string(rows) + " and " + std::to_string(cols));
  }
  return 1.0 / std::sqrt(static_cast<double>(rows)) +
         1.0 / std::sqrt(static_cast<double>(cols));
}

double largest_value(const QuinticSequence& sequence, double upper,
                     std::string_view name) {
  int step = 0;
  const auto where = [&] {  // only when it fails: this runs in every optimizer step
    return "check_sequence: step " + std::to_string(step) + " of " + std::string(name);
  };
  for (const Quintic& p : sequence) {
    ++step;
    if (!std::isfinite(p.a) || !std::isfinite(p.b) || !std::isfinite(p.c)) {
      throw std::invalid_argument(where() + " must have finite coefficients, got (" +
                                  number(p.a) + ", " + number(p.b) + ", " + number(p.c) +
                                  ")");
    }
    const Interval range = image(p, upper);
    // a double zero, such as f_s at 0, may come out as -1e-17
    if (range.low < -1e-12) {
      throw std::invalid_argument(where() + " must not go below zero on [0, " +
                                  number(upper) + "], got " + number(range.low) +
                                  "; it would step against the gradient");
    }
    upper = range.high;
    if (!std::isfinite(upper)) break;
  }
  return upper;
}

void check_sequence(const QuinticSequence& sequence, std::string_view name,
                    double upper) {
  const double largest = largest_value(sequence, upper, name);
  if (largest <= kLargestOutput) return;
  throw std::invalid_argument("check_sequence: " + std::string(name) +
                              " must stay below " + number(kLargestOutput) + " on [0, " +
                              number(upper) + "], got " + number(largest) +
                              "; give its input a norm margin");
}

}  // namespace pion
