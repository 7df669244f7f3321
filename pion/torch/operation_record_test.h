// SPDX-License-Identifier: Apache-2.0
// What ATen was asked to do while a record lives, for tests: every operation that nobody
// else's calls is one launch on a device, or a few.
#pragma once

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace pion {

class OperationRecord {
 public:
  struct Operation {
    std::string name;
    double bytes = 0;  // read and written; 0 for views
    bool f64 = false;  // of an input
  };

  // LibTorch is built with NDEBUG: without it inputs seem invalid to its headers.
#ifdef NDEBUG
  static constexpr bool kWorks = true;
#else
  static constexpr bool kWorks = false;
#endif

  OperationRecord() : callback_(at::addThreadLocalCallback(made())) { own() = this; }
  ~OperationRecord() {
    at::removeCallback(callback_);
    own() = nullptr;
  }

  // Those that move data.
  std::vector<Operation> all;

  static bool is_product(const Operation& one) {
    return one.name == "pion::product" || one.name == "aten::bmm" ||
           one.name == "aten::baddbmm" || one.name == "aten::baddbmm_";
  }
  double bytes_beside_products() const {
    double sum = 0;
    for (const Operation& one : all) sum += is_product(one) ? 0 : one.bytes;
    return sum;
  }

 private:
  struct Input {
    const void* tensor;
    const void* storage;
    double bytes;
  };
  struct Started : at::ObserverContext {
    std::vector<std::vector<Input>> arguments;
    bool outermost = false, f64 = false;
  };

  static OperationRecord*& own() {
    static thread_local OperationRecord* record = nullptr;
    return record;
  }
  static Input input_of(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.has_storage()) return {nullptr, nullptr, 0};
    const double size = std::min<double>(static_cast<double>(tensor.nbytes()),
                                         static_cast<double>(tensor.storage().nbytes()));
    return {tensor.unsafeGetTensorImpl(), tensor.storage().unsafeGetStorageImpl(), size};
  }
  static std::vector<Input> inputs_of(const c10::IValue& value, bool& f64) {
    std::vector<Input> result;
    const auto add = [&](const at::Tensor& tensor) {
      result.push_back(input_of(tensor));
      f64 |= tensor.defined() && tensor.scalar_type() == at::kDouble;
    };
    if (value.isTensor()) add(value.toTensor());
    if (value.isTensorList())
      for (const at::Tensor& one : value.toTensorVector()) add(one);
    return result;
  }
  static double sum(const std::vector<Input>& inputs) {
    double bytes = 0;
    for (const Input& one : inputs) bytes += one.bytes;
    return bytes;
  }

  static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
    auto context = std::make_unique<Started>();
    context->outermost = own() != nullptr && own()->depth_++ == 0;
    if (!context->outermost) return context;
    for (const c10::IValue& value : function.inputs()) {
      std::vector<Input> own_inputs = inputs_of(value, context->f64);
      if (!own_inputs.empty()) context->arguments.push_back(std::move(own_inputs));
    }
    return context;
  }

  static void end(const at::RecordFunction& function, at::ObserverContext* context) {
    if (own() == nullptr) return;
    --own()->depth_;
    auto* started = static_cast<Started*>(context);
    if (!started->outermost) return;
    Operation one{.name = function.name(), .f64 = started->f64};
    if (one.name.starts_with("aten::empty") || one.name == "aten::detach") return;
    double read = 0, written = 0;
    for (const auto& argument : started->arguments) read += sum(argument);
    bool f64 = false;
    std::vector<Input> outputs;
    for (const c10::IValue& value : function.outputs()) {
      const auto found = inputs_of(value, f64);
      outputs.insert(outputs.end(), found.begin(), found.end());
    }
    one.f64 |= f64;
    const auto& arguments = started->arguments;
    if (one.name == "pion::round_scaled") {
      written = arguments.front().front().bytes / 2;  // fp16 of f32
    } else if (one.name.ends_with("_")) {
      written = arguments.empty() ? 0 : sum(arguments.front());
      // lists of weights, gradients and what else there is of state
      if (one.name.starts_with("aten::_fused_"))
        for (std::size_t i = 2; i < arguments.size(); ++i) written += sum(arguments[i]);
      if (one.name.ends_with("copy_")) read -= written;
    } else {
      const bool out = arguments.size() > 1 && !outputs.empty() &&
                       arguments.back().front().tensor == outputs.front().tensor;
      if (out) read -= sum(arguments.back());
      const bool view = !out && !arguments.empty() && !outputs.empty() &&
                        arguments.front().front().storage == outputs.front().storage;
      if (view) return;
      written = sum(outputs);
    }
    one.bytes = read + written;
    own()->all.push_back(std::move(one));
  }

  static at::RecordFunctionCallback made() {
    return at::RecordFunctionCallback(&start, &end)
        .needsInputs(true)
        .needsOutputs(true)
        .scopes({at::RecordScope::FUNCTION});
  }

  int depth_ = 0;
  at::CallbackHandle callback_;
};

}  // namespace pion
