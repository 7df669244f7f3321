// SPDX-License-Identifier: Apache-2.0
// Steps of whole optimizers, and spectral maps of single arrays, on a pool of threads.
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pion/optim/empty_update_watch.h"
#include "pion/optim/rounding.h"
#include "python/bindings/bindings.h"

namespace nb = nanobind;

namespace pion::python {
namespace {

using Address = std::uintptr_t;
using Numbers = std::map<std::string, double>;

ElementType element_type(const std::string& name) {
  if (name == "f32") return ElementType::kF32;
  if (name == "f64") return ElementType::kF64;
  if (name == "bf16") return ElementType::kBf16;
  throw std::invalid_argument("pion: an array must be f32, f64 or bf16, got " + name);
}

LowPrecision low_precision(const std::string& name) {
  if (name == "master") return LowPrecision::kMasterCopy;
  if (name == "stochastic") return LowPrecision::kStochastic;
  if (name == "nearest") return LowPrecision::kNearest;
  throw std::invalid_argument(
      "pion: low_precision must be one of \"master\" \"stochastic\" \"nearest\", got \"" +
      name + "\"");
}

Numbers numbers_of(const UpdateStatistics& s) {
  return {{"skipped", s.skipped ? 1.0 : 0.0}, {"gradient_norm", s.gradient_norm},
          {"update_rms", s.update_rms},       {"directions_passed", s.directions_passed},
          {"directions", s.directions},       {"stable_rank", s.stable_rank},
          {"sigma_max", s.sigma_max},         {"energy_kept", s.energy_kept},
          {"head_spread", s.head_spread},     {"half_pass", s.half_pass}};
}

// The same of every matrix of a stack, and whether it was left alone.
std::vector<Numbers> rows_of(std::span<const UpdateStatistics> matrices) {
  std::vector<Numbers> rows;
  for (const UpdateStatistics& one : matrices) {
    rows.push_back(numbers_of(one));
    rows.back().emplace("idle", static_cast<double>(one.idle));
  }
  return rows;
}

double number(const Numbers& numbers, const char* key) {
  const auto found = numbers.find(key);
  return found == numbers.end() ? 0.0 : found->second;
}

// What a watch needs of a step's figures.
UpdateStatistics statistics_of(const Numbers& numbers) {
  return {.skipped = number(numbers, "skipped") != 0,
          .gradient_norm = number(numbers, "gradient_norm"),
          .directions_passed = number(numbers, "directions_passed"),
          .directions = number(numbers, "directions"),
          .sigma_max = number(numbers, "sigma_max"),
          .half_pass = number(numbers, "half_pass")};
}

struct Counters {  // i64 x 4 in the parameter's state, as C++ checkpoints have them
  std::int64_t empty_in_a_row, warned_of_empty, warned_of_skip, rounds;
};

// What is said of a parameter's steps, each once: `counters` remember it.
class Watch {
 public:
  void observe(const std::string& name, const Rule& rule, const UpdateStatistics& result,
               std::span<const UpdateStatistics> matrices, Counters& counters,
               std::vector<std::string>& warnings) {
    const bool known = watch_.consecutive() == counters.empty_in_a_row &&
                       watch_.warned() == (counters.warned_of_empty != 0);
    if (!known) {  // a state was loaded
      watch_.restore(static_cast<int>(counters.empty_in_a_row),
                     counters.warned_of_empty != 0);
    }
    const std::string warning = watch_.observe(name, rule, result, matrices);
    counters.empty_in_a_row = watch_.consecutive();
    counters.warned_of_empty = watch_.warned();
    if (!warning.empty()) warnings.push_back(warning);
    if (result.skipped && counters.warned_of_skip == 0) {
      counters.warned_of_skip = 1;
      warnings.push_back("step: the gradient of " + name +
                         " holds NaN or Inf; the parameter was skipped, and will be "
                         "whenever this happens again. Lower the learning rate or look "
                         "for a division by zero");
    }
  }

 private:
  EmptyUpdateWatch watch_;
};

// What the stepper knows of one parameter between steps.
class Slot {
 public:
  Slot(std::string name, const BoundRule& rule, HeadLayout layout, std::int64_t count,
       std::int64_t rows, std::int64_t cols, const std::string& weight_type,
       const std::string& rounding, bool maximize, std::uint64_t ordinal, bool stack)
      : name_(std::move(name)), rule_(&rule), ordinal_(ordinal) {
    update_.layout = std::move(layout);
    update_.count = count, update_.rows = rows, update_.cols = cols;
    update_.weight_type = element_type(weight_type);
    update_.low_precision = low_precision(rounding);
    update_.maximize = maximize;
    update_.stack = stack;
    update_.name = name_;
  }
  Slot(const Slot&) = delete;  // update_.name is of this name_
  Slot& operator=(const Slot&) = delete;

  // `step` is one f32 and `counters` four i64; the others as in ParameterUpdate, 0 where
  // the rule needs none.
  void aim(Address weight, Address gradient, int gradient_type, Address momentum,
           Address exp_avg, Address exp_avg_sq, Address master, Address step,
           Address counters, std::uint64_t seed) {
    update_.weight = pointer<void>(weight);
    update_.gradient = pointer<const void>(gradient);
    update_.gradient_type = static_cast<ElementType>(gradient_type);
    update_.momentum = pointer<void>(momentum);
    update_.momentum_is_finite = false;
    update_.exp_avg = pointer<void>(exp_avg);
    update_.exp_avg_sq = pointer<void>(exp_avg_sq);
    update_.master = pointer<float>(master);
    step_ = pointer<float>(step);
    counters_ = pointer<Counters>(counters);
    seed_ = seed;
  }

  // The same with another gradient.
  void gradient(Address gradient, int gradient_type) {
    update_.gradient = pointer<const void>(gradient);
    update_.gradient_type = static_cast<ElementType>(gradient_type);
  }

  // Lends the update to a step; take_back() must follow.
  ParameterUpdate lend() {
    update_.rule = &rule_->rule;
    update_.step = static_cast<std::int64_t>(*step_) + 1;
    if (update_.step == 1) update_.momentum_is_finite = true;  // zeros
    update_.seed =
        rounding_seed(seed_, ordinal_, static_cast<std::uint64_t>(counters_->rounds));
    return std::move(update_);
  }
  void take_back(ParameterUpdate&& update) { update_ = std::move(update); }

  // Counts what the step did; appends warnings.
  void finish(std::vector<std::string>& warnings) {
    const UpdateStatistics& result = update_.result;
    ++counters_->rounds;
    if (!result.skipped) *step_ += 1;
    // nobody has looked at that of an idle matrix
    update_.momentum_is_finite =
        !result.skipped && (update_.momentum_is_finite || result.idle == 0);
    const auto matrices =
        update_.stack ? update_.matrices : std::span<const UpdateStatistics>();
    matrices_.assign(matrices.begin(), matrices.end());
    watch_.observe(name_, rule_->rule, result, matrices_, *counters_, warnings);
  }

  const UpdateStatistics& result() const { return update_.result; }
  const std::vector<UpdateStatistics>& matrices() const { return matrices_; }

 private:
  std::string name_;
  const BoundRule* rule_;  // kept alive by Python
  std::uint64_t ordinal_;
  ParameterUpdate update_;
  std::vector<UpdateStatistics> matrices_;  // of a stack, in the last step
  Watch watch_;
  float* step_ = nullptr;
  Counters* counters_ = nullptr;
  std::uint64_t seed_ = 0;
};

// Threads and scratch memory. Calls from several Python threads wait for one another.
class Stepper {
 public:
  explicit Stepper(int threads)
      : executor_(make_thread_pool(threads)), owner_(::getpid()) {}
  ~Stepper() {
    // the threads of a forked process's parent cannot be joined here
    if (::getpid() != owner_) static_cast<void>(executor_.release());
  }

  std::vector<std::string> step(const std::vector<Slot*>& slots, bool collect_spectrum) {
    std::vector<std::string> warnings;
    const nb::gil_scoped_release without_python;
    const std::lock_guard lock(mutex_);
    updates_.clear();
    for (Slot* slot : slots) updates_.push_back(slot->lend());
    const auto take_back = [&] {
      for (std::size_t i = 0; i < slots.size(); ++i)
        slots[i]->take_back(std::move(updates_[i]));
    };
    workspaces_.collect_spectrum = collect_spectrum;
    try {
      step_all(updates_, *executor_, workspaces_);
    } catch (...) {
      take_back();
      throw;
    }
    take_back();
    for (Slot* slot : slots) slot->finish(warnings);
    return warnings;
  }

  // `count` matrices, one after the other; statistics of each.
  std::vector<Numbers> map(const BoundRule& rule, const std::string& type, Address input,
                           Address output, std::int64_t count, std::int64_t rows,
                           std::int64_t cols) {
    std::vector<SpectrumStatistics> statistics(static_cast<std::size_t>(count));
    {
      const nb::gil_scoped_release without_python;
      const std::lock_guard lock(mutex_);
      const SpectralMap map = rule_map(rule.rule, rows, cols);
      switch (element_type(type)) {
        case ElementType::kF32:
          map_all<float>(map, input, output, rows, cols, statistics);
          break;
        case ElementType::kF64:
          map_all<double>(map, input, output, rows, cols, statistics);
          break;
        case ElementType::kBf16:
          map_all<bfloat16>(map, input, output, rows, cols, statistics);
          break;
      }
    }
    std::vector<Numbers> result;
    for (const SpectrumStatistics& s : statistics) {
      result.push_back({{"frobenius_norm", s.frobenius_norm},
                        {"sigma_max", s.sigma_max},
                        {"stable_rank", s.stable_rank},
                        {"directions_passed", s.directions_passed},
                        {"energy_kept", s.energy_kept}});
    }
    return result;
  }

  int threads() const { return executor_->threads(); }

 private:
  template <class T>
  void map_all(const SpectralMap& map, Address input, Address output, std::int64_t rows,
               std::int64_t cols, std::vector<SpectrumStatistics>& statistics) {
    std::vector<SpectralWorkspace> workspaces;
    for (int i = 0; i < executor_->threads(); ++i) workspaces.emplace_back();
    std::atomic<bool> finite = true;
    const auto one = [&](int task, int thread) {
      const MatrixViewOf<const T> from =
          view(pointer<const T>(input) + task * rows * cols, rows, cols);
      const MatrixViewOf<T> to =
          view(pointer<T>(output) + task * rows * cols, rows, cols);
      if (!apply_spectral_map<T>(map, {&from, 1}, {&to, 1},
                                 workspaces[static_cast<std::size_t>(thread)],
                                 {&statistics[static_cast<std::size_t>(task)], 1})) {
        finite = false;
      }
    };
    executor_->run(static_cast<int>(statistics.size()), one);
    if (!finite) {
      throw std::invalid_argument(
          "spectral_map: x must be finite, got NaN or Inf; look for the step that made "
          "them");
    }
  }

  std::unique_ptr<Executor> executor_;
  pid_t owner_;
  std::mutex mutex_;
  std::vector<ParameterUpdate> updates_;
  StepWorkspaces workspaces_;
};

std::vector<std::string> observe_figures(Watch& watch, const std::string& name,
                                         const BoundRule& rule, const Numbers& figures,
                                         const std::vector<Numbers>& matrices,
                                         Address counters) {
  std::vector<UpdateStatistics> rows;
  for (const Numbers& one : matrices) rows.push_back(statistics_of(one));
  std::vector<std::string> warnings;
  watch.observe(name, rule.rule, statistics_of(figures), rows,
                *pointer<Counters>(counters), warnings);
  return warnings;
}

HeadLayout make_layout(int axis, std::vector<std::int64_t> sizes,
                       std::vector<std::int64_t> heads, bool transposed) {
  if (axis != 0 && axis != 1) {
    throw std::invalid_argument("pion: head_axis must be 0 or 1, got " +
                                std::to_string(axis));
  }
  return {axis, std::move(sizes), std::move(heads), transposed};
}

}  // namespace

void bind_steps(nb::module_& module) {
  nb::class_<HeadLayout>(module, "HeadLayout", "How a weight is cut into blocks.")
      .def(
          "__init__",
          [](HeadLayout* self, int axis, std::vector<std::int64_t> sizes,
             std::vector<std::int64_t> heads, bool transposed) {
            new (self) HeadLayout(
                make_layout(axis, std::move(sizes), std::move(heads), transposed));
          },
          nb::arg("axis") = 0, nb::arg("sizes") = std::vector<std::int64_t>{},
          nb::arg("heads") = std::vector<std::int64_t>{1}, nb::arg("transposed") = false)
      .def_ro("axis", &HeadLayout::axis)
      .def_ro("sizes", &HeadLayout::sizes)
      .def_ro("heads", &HeadLayout::heads)
      .def_ro("transposed", &HeadLayout::transposed)
      .def(
          "blocks",
          [](const HeadLayout& self, std::int64_t rows, std::int64_t cols) {
            std::vector<
                std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>>
                all;
            for (const Block& b : head_blocks(self, rows, cols)) {
              all.emplace_back(b.row, b.col, b.rows, b.cols);
            }
            return all;
          },
          nb::arg("rows"), nb::arg("cols"), "(row, col, rows, cols) of every block.");

  nb::class_<Slot>(module, "Slot", "One parameter of a Stepper.")
      .def(nb::init<std::string, const BoundRule&, HeadLayout, std::int64_t, std::int64_t,
                    std::int64_t, const std::string&, const std::string&, bool,
                    std::uint64_t, bool>(),
           nb::arg("name"), nb::arg("rule"), nb::arg("layout"), nb::arg("count"),
           nb::arg("rows"), nb::arg("cols"), nb::arg("weight_type"),
           nb::arg("low_precision"), nb::arg("maximize"), nb::arg("ordinal"),
           nb::arg("stack"), nb::keep_alive<1, 3>())
      .def("aim", &Slot::aim, nb::arg("weight"), nb::arg("gradient"),
           nb::arg("gradient_type"), nb::arg("momentum"), nb::arg("exp_avg"),
           nb::arg("exp_avg_sq"), nb::arg("master"), nb::arg("step"), nb::arg("counters"),
           nb::arg("seed"),
           "Addresses for the next step: arrays that stay alive until it is done.")
      .def("gradient", &Slot::gradient, nb::arg("gradient"), nb::arg("gradient_type"),
           "Another gradient; all else as aimed before.")
      .def("result", [](const Slot& slot) { return numbers_of(slot.result()); })
      .def(
          "matrices", [](const Slot& slot) { return rows_of(slot.matrices()); },
          "The same of every matrix of a stack, and \"idle\": 1 if it was left alone.");

  nb::class_<Watch>(module, "Watch", "What is said of one parameter's steps, each once.")
      .def(nb::init<>())
      .def("observe", &observe_figures, nb::arg("name"), nb::arg("rule"),
           nb::arg("figures"), nb::arg("matrices"), nb::arg("counters"),
           "Warnings of a step with these figures (of a stack also of every matrix); "
           "`counters` is the address of four i64, which remember.");

  nb::class_<Stepper>(module, "Stepper", "A pool of threads that steps parameters.")
      .def(nb::init<int>(), nb::arg("threads"))
      .def("step", &Stepper::step, nb::arg("slots"), nb::arg("collect_spectrum"),
           "Steps all slots in place; returns warnings. Nothing is written if it throws.")
      .def("map", &Stepper::map, nb::arg("rule"), nb::arg("type"), nb::arg("input"),
           nb::arg("output"), nb::arg("count"), nb::arg("rows"), nb::arg("cols"))
      .def_prop_ro("threads", &Stepper::threads);
  module.def("rounding_seed", &rounding_seed, nb::arg("seed"), nb::arg("parameter"),
             nb::arg("step"));
  module.def("rounding_start", &rounding_start, nb::arg("seed"));
}

}  // namespace pion::python
