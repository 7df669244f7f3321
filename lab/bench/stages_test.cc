// SPDX-License-Identifier: Apache-2.0
#include "lab/bench/stages.h"

#include <gtest/gtest.h>

#include "lab/bench/machine.h"
#include "pion/kernels/cpu_target.h"
#include "tests/thrown_message.h"

namespace pion::bench {
namespace {

TEST(Stages, CoverOneStepAndCountWhatItMultiplies) {
  // m = 8, n = 24: m^2 n = 1536, 17 m^3 = 8704, 2 m^2 n = 3072
  const std::vector<Stage> stages =
      measure_stages(8, 24, "pion2", Precision::kFast, 1e-3);
  ASSERT_EQ(stages.size(), 4u);
  const double flops[] = {0, 1536, 8704, 3072};
  const double bytes[] = {4 * 192, 12 * 192, 0, 8 * 192};
  for (std::size_t s = 0; s < 4; ++s) {
    EXPECT_GT(stages[s].us, 0) << stages[s].name;
    EXPECT_LT(stages[s].us, 1e6) << stages[s].name;
    EXPECT_EQ(stages[s].flops, flops[s]) << stages[s].name;
    EXPECT_EQ(stages[s].bytes, bytes[s]) << stages[s].name;
  }
  EXPECT_NE(message_of([] { measure_stages(8, 24, "muon", Precision::kF32, 1e-3); }), "");
}

TEST(Stages, ProductsNeedBf16) {
  const std::vector<Stage> products = measure_products(64, 96, 1e-3);
  if (!has_bf16(cpu_target())) {
    EXPECT_TRUE(products.empty());
    return;
  }
  ASSERT_EQ(products.size(), 6u);
  EXPECT_EQ(products[1].flops, 64.0 * 64 * 96);
  EXPECT_EQ(products[3].flops, 3 * 64.0 * 64 * 64);
  EXPECT_EQ(products[5].flops, 4 * 64.0 * 64 * 96);
  // nothing is faster than the unit is: 1.2 for clocks that change in between
  const std::string target(cpu_target_name(cpu_target()));
  const double peak = measure_peaks(1, 0.05).bf16_gflops(target);
  for (const Stage& product : products) {
    EXPECT_GT(product.us, 0) << product.name;
    EXPECT_LT(1e-3 * product.flops / product.us, 1.2 * peak) << product.name;
  }
}

}  // namespace
}  // namespace pion::bench
