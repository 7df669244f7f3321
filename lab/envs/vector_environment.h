// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pion::lab {

// What one step of E environments produced. The environment owns the arrays; they hold
// until its next step or restore.
struct StepResult {
  std::vector<float> rewards;            // (E)
  std::vector<std::uint8_t> terminated;  // (E) 1: the episode ended by the rules
  std::vector<std::uint8_t> truncated;   // (E) 1: it was cut off; never both
  std::vector<float>
      final_observations;  // (E x observation_size) written where an episode ended
  std::vector<double>
      episode_returns;  // (E) sum of rewards, valid where an episode ended
  std::vector<std::int64_t> episode_lengths;  // (E) steps, valid where an episode ended
  std::vector<std::int64_t> scores;  // (E) the task's score, valid where an episode ended
  std::vector<std::uint8_t> wins;    // (E) 1: the episode ended in a win

  bool done(std::size_t e) const { return terminated[e] != 0 || truncated[e] != 0; }
};

// E environments that step together and reset themselves. Observations are float, actions
// are integers in [0, actions()).
class VectorEnvironment {
 public:
  virtual ~VectorEnvironment() = default;

  virtual std::int64_t environments() const = 0;
  virtual std::int64_t observation_size() const = 0;
  virtual std::int64_t actions() const = 0;

  // The present observations, (E x observation_size), into the caller's array.
  virtual void observe(std::span<float> observations) const = 0;

  // One step of every environment. An environment whose episode ended starts its next one
  // at once: observe() then shows the first board of the new episode and
  // final_observations the last one of the old. Throws std::invalid_argument for a wrong
  // count or an unknown action.
  virtual const StepResult& step(std::span<const std::int64_t> actions) = 0;

  // The complete state, generators included: after restore() every later step is bit for
  // bit what it would have been. restore() throws std::invalid_argument, changing
  // nothing, if the bytes are not a state of an environment with these options.
  virtual std::vector<std::uint8_t> save() const = 0;
  virtual void restore(std::span<const std::uint8_t> state) = 0;
};

}  // namespace pion::lab
