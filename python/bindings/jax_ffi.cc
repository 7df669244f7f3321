// SPDX-License-Identifier: Apache-2.0
// An XLA custom call for the CPU: one step of a matrix rule on all matrices of a tree.
//
//   operands  G_1 ... G_n, M_1 ... M_n, and mu if plan.traced_momentum
//   results   U_1 ... U_n, M_1 ... M_n (may share memory with the operands), report
//   plan      JSON: rule, keys, traced_momentum, layouts (n of them)
//
// Arrays are (..., count, rows, cols); what stands before count are independent steps, as
// jax.vmap makes them. U = -s O: the change of a weight at learning rate 1. The report is
// (..., n, 2): whether the gradient was skipped, and the directions passed.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pion/optim/json_parser.h"
#include "python/bindings/bindings.h"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace pion::python {
namespace {

using Json = nlohmann::json;

struct Plan {
  Rule rule;
  std::vector<HeadLayout> layouts;
  std::vector<bool> stacks;  // by matrix: see ParameterUpdate::stack
  bool traced_momentum = false;
};

RuleValue rule_value(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  return value.get<std::string>();
}

Plan parse_plan(std::string_view text) {
  const Json json = parse_json<Json>(text);
  Plan plan{.rule = make_rule(json.at("rule").get<std::string>())};
  for (const auto& [key, value] : json.at("keys").items()) {
    set_rule_key(plan.rule, key, rule_value(value));
  }
  MatrixRule* shared = matrix_rule(plan.rule);
  if (shared == nullptr) throw std::invalid_argument("pion_step: no rule for matrices");
  // the caller multiplies by the rate, and adds the decay before that
  shared->lr = 1.0, shared->weight_decay = 0.0;
  plan.traced_momentum = json.at("traced_momentum").get<bool>();
  for (const Json& layout : json.at("layouts")) {
    plan.layouts.push_back({layout.at("axis").get<int>(),
                            layout.at("sizes").get<std::vector<std::int64_t>>(),
                            layout.at("heads").get<std::vector<std::int64_t>>(),
                            layout.at("transposed").get<bool>()});
    plan.stacks.push_back(layout.at("stack").get<bool>());
  }
  return plan;
}

ElementType element_type(ffi::DataType type) {
  switch (type) {
    case ffi::F32:
      return ElementType::kF32;
    case ffi::F64:
      return ElementType::kF64;
    case ffi::BF16:
      return ElementType::kBf16;
    default:
      throw std::invalid_argument("pion_step: an array must be f32, f64 or bf16");
  }
}

double scalar(const ffi::AnyBuffer& buffer, std::size_t index) {
  return buffer.element_type() == ffi::F64
             ? static_cast<const double*>(buffer.untyped_data())[index]
             : static_cast<const float*>(buffer.untyped_data())[index];
}

template <class T>
T* at(void* data, std::int64_t index) {
  return static_cast<T*>(data) + index;
}

void* offset(void* data, ElementType type, std::int64_t entries) {
  switch (type) {
    case ElementType::kF32:
      return at<float>(data, entries);
    case ElementType::kF64:
      return at<double>(data, entries);
    case ElementType::kBf16:
      return at<bfloat16>(data, entries);
  }
  return data;
}

// All calls of the process: the plans that it has seen, its threads and scratch memory.
// Calls from several devices wait for one another, each runs on all threads.
class Engine {
 public:
  void set_threads(int threads) {
    const std::lock_guard lock(mutex_);
    if (executor_->threads() == threads) return;
    executor_ = make_thread_pool(threads);
    workspaces_ = {};
  }

  void step(std::string_view text, ffi::RemainingArgs args, ffi::RemainingRets rets) {
    const std::lock_guard lock(mutex_);
    const Plan& plan = find(text);
    const std::size_t n = plan.layouts.size();
    if (args.size() != 2 * n + plan.traced_momentum || rets.size() != 2 * n + 1) {
      throw std::invalid_argument("pion_step: " + std::to_string(args.size()) +
                                  " operands do not fit a plan of " + std::to_string(n) +
                                  " matrices");
    }
    updates_.clear();
    rules_.assign(1, plan.rule);
    if (plan.traced_momentum) read_momenta(args.get<ffi::AnyBuffer>(2 * n).value());
    for (std::size_t i = 0; i < n; ++i) {
      add(plan.layouts[i], plan.stacks[i], args.get<ffi::AnyBuffer>(i).value(),
          args.get<ffi::AnyBuffer>(n + i).value(), *rets.get<ffi::AnyBuffer>(i).value(),
          *rets.get<ffi::AnyBuffer>(n + i).value());
    }
    step_all(updates_, *executor_, workspaces_);
    const ffi::AnyBuffer report = *rets.get<ffi::AnyBuffer>(2 * n).value();
    auto* rows = static_cast<float*>(report.untyped_data());
    const std::size_t batch = n == 0 ? 0 : updates_.size() / n;
    for (std::size_t k = 0; k < updates_.size(); ++k) {  // updates_ is (n, batch)
      const UpdateStatistics& result = updates_[k].result;
      float* row = rows + 2 * ((k % batch) * n + k / batch);
      row[0] = result.skipped ? 1.0f : 0.0f;
      row[1] = static_cast<float>(result.directions_passed);
    }
  }

 private:
  const Plan& find(std::string_view text) {
    const auto known = plans_.find(text);
    if (known != plans_.end()) return known->second;
    constexpr std::size_t kMostPlans = 256;  // of programs that are compiled ever anew
    if (plans_.size() >= kMostPlans) plans_.clear();
    return plans_.emplace(std::string(text), parse_plan(text)).first->second;
  }

  void read_momenta(const ffi::AnyBuffer& momenta) {
    rules_.assign(momenta.element_count(), rules_.front());
    for (std::size_t b = 0; b < rules_.size(); ++b) {
      matrix_rule(rules_[b])->momentum = scalar(momenta, b);
    }
  }

  void add(const HeadLayout& layout, bool stack, const ffi::AnyBuffer& gradient,
           const ffi::AnyBuffer& momentum, const ffi::AnyBuffer& update,
           const ffi::AnyBuffer& next_momentum) {
    if (next_momentum.untyped_data() != momentum.untyped_data()) {
      std::memcpy(next_momentum.untyped_data(), momentum.untyped_data(),
                  momentum.size_bytes());
    }
    std::memset(update.untyped_data(), 0, update.size_bytes());  // the weight
    const auto shape = gradient.dimensions();
    if (shape.size() < 3) throw std::invalid_argument("pion_step: rank must be >= 3");
    ParameterUpdate one{.layout = layout,
                        .count = shape[shape.size() - 3],
                        .rows = shape[shape.size() - 2],
                        .cols = shape[shape.size() - 1],
                        .weight_type = element_type(update.element_type()),
                        .gradient_type = element_type(gradient.element_type()),
                        .stack = stack};
    std::size_t batch = 1;
    for (std::size_t d = 0; d + 3 < shape.size(); ++d) {
      batch *= static_cast<std::size_t>(shape[d]);
    }
    const std::int64_t entries = one.count * one.rows * one.cols;
    for (std::size_t b = 0; b < batch; ++b) {
      const std::int64_t first = static_cast<std::int64_t>(b) * entries;
      one.rule = &rules_[rules_.size() == 1 ? 0 : b];
      one.gradient = offset(gradient.untyped_data(), one.gradient_type, first);
      one.weight = offset(update.untyped_data(), one.weight_type, first);
      one.momentum = offset(next_momentum.untyped_data(), one.weight_type, first);
      updates_.push_back(one);
    }
  }

  std::mutex mutex_;
  std::map<std::string, Plan, std::less<>> plans_;
  std::unique_ptr<Executor> executor_ = make_thread_pool(1);
  StepWorkspaces workspaces_;
  std::vector<Rule> rules_;  // one, or one for each of a batch of momenta
  std::vector<ParameterUpdate> updates_;
};

// Never destroyed: XLA's threads may outlive the end of main.
Engine& engine() {
  static auto* const only = new Engine;
  return *only;
}

ffi::Error step(std::string_view plan, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  try {
    engine().step(plan, args, rets);
    return ffi::Error::Success();
  } catch (const std::invalid_argument& error) {
    return ffi::Error::InvalidArgument(error.what());
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

XLA_FFI_DEFINE_HANDLER(
    step_target, step,
    ffi::Ffi::Bind().Attr<std::string_view>("plan").RemainingArgs().RemainingRets());

}  // namespace

void bind_jax_ffi(nb::module_& module) {
  // XLA asks for this name of capsules that hold its targets
  module.attr("jax_step_target") =
      nb::capsule(reinterpret_cast<void*>(step_target), "xla._CUSTOM_CALL_TARGET");
  module.def(
      "set_jax_threads", [](int threads) { engine().set_threads(threads); },
      nb::arg("threads"), nb::call_guard<nb::gil_scoped_release>(),
      "Threads of a step inside XLA; changes no result.");
}

}  // namespace pion::python
