// SPDX-License-Identifier: Apache-2.0
// What the step of other devices promises beside its numbers: launches, bytes, memory, no
// waiting; run on CPU tensors.
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <cmath>

#include "pion/torch/aten_batch.h"
#include "pion/torch/one_rule.h"
#include "pion/torch/operation_record_test.h"
#include "pion/torch/parameter.h"

namespace pion {
namespace {

using Shapes = std::vector<std::vector<std::int64_t>>;

std::vector<torch::Tensor> weights_of(const Shapes& shapes,
                                      at::ScalarType type = at::kFloat,
                                      at::ScalarType gradients = at::kFloat) {
  torch::manual_seed(1);
  std::vector<torch::Tensor> weights;
  for (const auto& shape : shapes) {
    weights.push_back(torch::randn(shape).to(type).requires_grad_());
    weights.back().mutable_grad() = torch::randn(shape).to(gradients).to(type);
  }
  return weights;
}

template <class Options>
std::unique_ptr<OptimizerOf<Options>> generic(std::vector<torch::Tensor> weights,
                                              const Options& options) {
  auto optimizer = std::make_unique<OptimizerOf<Options>>(std::move(weights), options);
  optimizer->force_device_generic(true);
  return optimizer;
}

// Operations of the second step, when all state is there.
template <class Options>
std::vector<OperationRecord::Operation> recorded(const Shapes& shapes,
                                                 const Options& options,
                                                 double* bytes = nullptr) {
  const auto optimizer = generic(weights_of(shapes), options);
  optimizer->step();
  OperationRecord record;
  optimizer->step();
  if (bytes != nullptr) *bytes = record.bytes_beside_products();
  return record.all;
}

Shapes many(const Shapes& shapes, int count) {
  Shapes result;
  for (int i = 0; i < count; ++i) result.push_back(shapes[i % shapes.size()]);
  return result;
}

TEST(AtenLaunches, AreFewForManyMatrices) {
  if (!OperationRecord::kWorks) GTEST_SKIP() << "needs a build with NDEBUG";
  const Shapes shapes = many({{64, 64}, {64, 192}, {192, 64}, {32, 64}}, 210);
  const auto muon = recorded(shapes, MuonOptions(0.1).weight_decay(0.1));
  const auto pion = recorded(shapes, PionOptions(0.1).promotion_steps(2));
  const auto heads = recorded(many({{64, 64}}, 210), MuonOptions(0.1).heads(4));
  const auto adamw = recorded(many({{64}, {64, 32}}, 210), AdamWOptions(0.1));
  // four shapes, a few tens each
  EXPECT_LE(muon.size(), 300u);
  EXPECT_LE(pion.size(), 350u);
  EXPECT_LE(heads.size(), 100u);
  EXPECT_LE(adamw.size(), 100u);
  if (std::getenv("PION_TEST_TABLE"))
    std::printf("launches: muon %zu pion %zu heads %zu adamw %zu\n", muon.size(),
                pion.size(), heads.size(), adamw.size());
}

// Bytes an entry beside the products, of so many matrices.
template <class Options>
double bytes_of(const Options& options, std::vector<std::int64_t> shape, int count = 1) {
  double bytes = 0;
  recorded(many({shape}, count), options, &bytes);
  return bytes / static_cast<double>(count * c10::multiply_integers(shape));
}

TEST(AtenBytes, AreFewAnEntry) {
  if (!OperationRecord::kWorks) GTEST_SKIP() << "needs a build with NDEBUG";
  const std::vector<std::int64_t> wide = {64, 1024}, square = {384, 384};
  const auto filter = PionOptions(0.1).promotion_steps(2);
  // momentum and direction, a norm, X in fp16 and zeros in it
  EXPECT_LE(bytes_of(MuonOptions(0.1), wide), 38.1);
  EXPECT_LE(bytes_of(MuonOptions(0.1), square), 38.1);
  EXPECT_LE(bytes_of(filter, wide), 27.5);
  EXPECT_LE(bytes_of(PionOptions(0.1).promotion_steps(2).weight_decay(0.1), wide), 35.5);
  // a matrix that a filter may suppress whole: T is scaled by what it holds, three times
  EXPECT_LE(bytes_of(filter, {1024, 1024}), 42.1);
  EXPECT_LE(bytes_of(AdamWOptions(0.1).weight_decay(0.1), wide), 32.1);
  EXPECT_LE(bytes_of(SgdOptions(0.1), wide), 24.1);
  // copied into a batch and back: gradient, momentum, weight
  EXPECT_LE(bytes_of(MuonOptions(0.1), wide, 8), 90.1);
  EXPECT_LE(bytes_of(filter, wide, 8), 78.5);
}

TEST(AtenStep, NeitherWaitsNorTakesF64) {
  if (!OperationRecord::kWorks) GTEST_SKIP() << "needs a build with NDEBUG";
  const Shapes shapes = many({{64, 64}, {32, 64}}, 4);
  std::vector<OperationRecord::Operation> all;
  const auto add = [&](const auto& options) {
    for (auto& one : recorded(shapes, options)) all.push_back(std::move(one));
  };
  add(MuonOptions(0.1).weight_decay(0.1));
  add(MuonOptions(0.1).precision(Precision::kAccurate));
  add(MuonOptions(0.1).normalization(Normalization::kSpectral));
  add(PionOptions(0.1).promotion_steps(2));
  add(MuonOptions(0.1).scale(Scale::kUnitRms));
  add(AdamWOptions(0.1).weight_decay(0.1));
  add(AdamWOptions(0.1).nonfinite(NonFinite::kZero));
  add(SgdOptions(0.1).dampening(0.1));
  for (const auto& one : all) {
    EXPECT_FALSE(one.f64) << one.name;
    for (const char* const waits : {"aten::item", "aten::_local_scalar_dense",
                                    "aten::nonzero", "aten::is_nonzero", "aten::equal"})
      EXPECT_NE(one.name, waits);
  }
}

// Counts what the CPU allocates while it lives.
class CountingAllocator : public c10::Allocator {
 public:
  CountingAllocator() : base_(c10::GetCPUAllocator()) {
    live_ = peak_ = 0;
    c10::SetCPUAllocator(this, kPriority);
  }
  ~CountingAllocator() override { c10::SetCPUAllocator(base_, kPriority); }

  c10::DataPtr allocate(std::size_t bytes) override {
    auto* held = new Held{base_->allocate(bytes), static_cast<std::int64_t>(bytes)};
    live_ += held->bytes;
    peak_ = std::max<std::int64_t>(peak_, live_);
    return {held->data.get(), held, &release, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  static std::int64_t peak() { return peak_; }

 private:
  struct Held {
    c10::DataPtr data;
    std::int64_t bytes;
  };
  static void release(void* context) {
    const std::unique_ptr<Held> held(static_cast<Held*>(context));
    live_ -= held->bytes;
  }
  static constexpr std::uint8_t kPriority = 100;
  c10::Allocator* base_;
  static std::atomic<std::int64_t> live_, peak_;
};
std::atomic<std::int64_t> CountingAllocator::live_ = 0;
std::atomic<std::int64_t> CountingAllocator::peak_ = 0;

// Bytes that the second step allocates at most, all state being there.
template <class Options>
std::int64_t peak_of(std::vector<torch::Tensor> weights, const Options& options) {
  const auto optimizer = generic(std::move(weights), options);
  optimizer->step();
  CountingAllocator counted;
  optimizer->step();
  return CountingAllocator::peak();
}

TEST(AtenMemory, OfManyMatricesIsThatOfAPiece) {
  // three pieces; two polynomials, since memory does not depend on more
  const LowerStepBytes lower(8 << 20);
  const Shapes shapes = many({{64, 128}}, 95);
  const auto muon = MuonOptions(0.1).steps(2).weight_decay(0.1);
  for (const Precision precision : {Precision::kFast, Precision::kAccurate}) {
    auto options = muon;
    EXPECT_LE(peak_of(weights_of(shapes), options.precision(precision)), step_bytes());
  }
  EXPECT_LE(peak_of(weights_of(shapes, at::kBFloat16), muon), step_bytes());
  EXPECT_LE(peak_of(weights_of(shapes), AdamWOptions(0.1)), step_bytes());
  auto stack = muon;
  EXPECT_LE(peak_of(weights_of({{95, 64, 128}}), stack.fold(Fold::kStack)), step_bytes());
}

TEST(AtenMemory, OfStochasticRoundingIsThatOfAPiece) {
  // random bits are made 512 Ki at a time, whatever a step may take
  const LowerStepBytes lower(32 << 20);
  EXPECT_LE(peak_of(weights_of(many({{64, 128}}, 380), at::kBFloat16),
                    AdamWOptions(0.1).low_precision(LowPrecision::kStochastic)),
            step_bytes());
}

// The CPU's emulation of fp16 products takes 2 MiB more, numbers a matrix some bytes.
constexpr std::int64_t kEmulation = (2 << 20) + 4096;

TEST(AtenMemory, OfOneMatrixIsTwoOfItsBuffers) {
  for (const std::vector<std::int64_t>& shape : Shapes{{1024, 1024}, {1400, 700}}) {
    const std::int64_t limit = 8 * c10::multiply_integers(shape) + kEmulation;
    const auto options = MuonOptions(0.1).steps(2).weight_decay(0.1);
    EXPECT_LE(peak_of(weights_of({shape}), options), limit);
    EXPECT_LE(peak_of(weights_of({shape}, at::kBFloat16), options), limit);
    EXPECT_LE(peak_of(weights_of({shape}), PionOptions(0.1).promotion_steps(0).steps(2)),
              limit);
  }
}

// Two buffers are more than a step may take: by columns, which one polynomial shows.
TEST(AtenMemory, OfALargeMatrixIsTwoOfItsBuffersInEveryPrecision) {
  const LowerStepBytes lower(8 << 20);
  const std::vector<std::int64_t> shape = {468, 2304};
  const std::int64_t limit = 8 * c10::multiply_integers(shape) + kEmulation;
  for (const Precision precision : {Precision::kAccurate, Precision::kF32}) {
    EXPECT_LE(
        peak_of(weights_of({shape}), MuonOptions(0.1).steps(1).precision(precision)),
        limit);
  }
}

// One of each bucket has a NaN: it stays, to the bit, and the others move.
template <class Options>
void expect_skips(const Options& options, const Shapes& shapes) {
  auto weights = weights_of(shapes);
  const auto optimizer = generic(weights, options);
  optimizer->step();
  std::vector<torch::Tensor> before;
  for (const auto& weight : weights) before.push_back(weight.detach().clone());
  std::map<std::string, torch::Tensor> state = optimizer->state_tensors();
  for (auto& [name, tensor] : state) tensor = tensor.clone();
  weights[1].mutable_grad().view(-1)[3] = NAN;
  weights[2].mutable_grad().view(-1)[5] = INFINITY;
  optimizer->step();
  const auto after = optimizer->state_tensors();
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const bool skipped = i == 1 || i == 2;
    EXPECT_EQ(weights[i].equal(before[i]), skipped) << i;
    EXPECT_TRUE(at::isfinite(weights[i]).all().item<bool>()) << i;
    const std::string prefix = "groups.0.params." + std::to_string(i) + ".";
    for (const auto& [name, tensor] : state) {
      const bool own = name.starts_with(prefix) && !name.ends_with("counters");
      if (own) {
        EXPECT_EQ(after.at(name).equal(tensor), skipped) << name;
      }
    }
  }
}

TEST(AtenStep, LeavesWhatIsNotFiniteToTheBit) {
  // in one piece, and each in its own
  const LowerStepBytes lower(8 << 20);
  for (const Shapes& shapes : {many({{24, 40}}, 4), many({{8, 22500}}, 4)}) {
    for (const double decay : {0.0, 0.1}) {
      expect_skips(MuonOptions(0.1).steps(2).weight_decay(decay), shapes);
      expect_skips(PionOptions(0.1).promotion_steps(1).steps(2).weight_decay(decay),
                   shapes);
      expect_skips(AdamWOptions(0.1).weight_decay(decay), shapes);
      expect_skips(SgdOptions(0.1).weight_decay(decay), shapes);
    }
  }
}

// Statistics must not change what a step writes.
TEST(AtenStep, TakesTheSameStepWithStatistics) {
  for (const auto& shape : Shapes{{24, 40}, {40, 24}}) {
    std::vector<torch::Tensor> results;
    for (const bool collect : {false, true}) {
      auto weights = weights_of(many({shape}, 3));
      const auto optimizer = generic(weights, MuonOptions(0.1));
      optimizer->collect_statistics(collect);
      for (int step = 0; step < 3; ++step) optimizer->step();
      results.push_back(torch::stack(weights).detach());
    }
    EXPECT_TRUE(results[0].equal(results[1]));
  }
}

TEST(AtenWarnings, NameAFilterThatPassesNothing) {
  torch::manual_seed(2);
  auto weight = torch::randn({32, 32}).requires_grad_(), other = torch::randn({4});
  const auto optimizer = generic({weight}, PionOptions(0.1).promotion_steps(0));
  std::vector<std::string> heard;
  optimizer->set_warning_sink([&](const std::string& text) { heard.push_back(text); });
  for (int step = 1; step <= 30; ++step) {
    weight.mutable_grad() = torch::randn({32, 32});
    optimizer->step();
    // looked at in the 10th and 20th step, read in the next
    EXPECT_EQ(heard.size(), step > 20 ? 1u : 0u) << step;
  }
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_NE(heard[0].find("the last 20 updates were empty"), std::string::npos)
      << heard[0];
}

TEST(AtenRounding, OfABucketIsThatOfEveryParameter) {
  const auto options =
      SgdOptions(1e-3).momentum(0).low_precision(LowPrecision::kStochastic);
  const Shapes shapes = many({{16, 24}}, 3);
  auto together = weights_of(shapes, at::kBFloat16, at::kBFloat16);
  const auto optimizer = generic(together, options);
  optimizer->set_seed(7);
  auto apart = weights_of(shapes, at::kBFloat16, at::kBFloat16);
  Sgd on_cpu(apart, options);
  on_cpu.set_seed(7);
  for (int step = 0; step < 3; ++step) optimizer->step(), on_cpu.step();
  for (std::size_t i = 0; i < together.size(); ++i) {
    // f32 results may differ by an ulp (fused multiply-add): 2^-16 of the roundings
    const auto differing = (together[i] != apart[i]).sum().item<std::int64_t>();
    EXPECT_LE(differing, 2) << i;
  }
}

TEST(State, FollowsItsParameterToAnotherDevice) {
  ParameterState state;
  state.momentum_buffer = torch::ones({3, 4});
  state.step = torch::ones({}, at::kLong);
  move_state(state, torch::empty({3, 4}, at::kMeta));
  EXPECT_TRUE(state.momentum_buffer.is_meta());
  EXPECT_TRUE(state.step.is_meta());
}

}  // namespace
}  // namespace pion
