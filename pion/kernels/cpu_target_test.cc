// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/cpu_target.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace pion {
namespace {

TEST(CpuTarget, PortableIsAlwaysSupportedAndTheWidestIsTheDefault) {
  const std::vector<CpuTarget> targets = supported_cpu_targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_EQ(targets.front(), CpuTarget::kPortable);
  EXPECT_EQ(choose_cpu_target(""), targets.back());
}

TEST(CpuTarget, ARequestIsHonoured) {
  for (const CpuTarget target : supported_cpu_targets()) {
    EXPECT_EQ(choose_cpu_target(cpu_target_name(target)), target);
  }
}

TEST(CpuTarget, AnUnknownRequestIsAnErrorThatListsTheChoices) {
  for (const char* name : {"sse9", "AVX2", "avx2 ", "native"}) {
    try {
      choose_cpu_target(name);
      FAIL() << name;
    } catch (const std::invalid_argument& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(name), std::string::npos) << message;
      EXPECT_NE(message.find("portable"), std::string::npos) << message;
    }
  }
}

TEST(CpuTarget, AKnownTargetThatTheMachineLacksIsAnError) {
  const std::vector<CpuTarget> supported = supported_cpu_targets();
  for (const CpuTarget target : {CpuTarget::kAvx2, CpuTarget::kAvx512}) {
    if (std::find(supported.begin(), supported.end(), target) != supported.end())
      continue;
    EXPECT_THROW(choose_cpu_target(cpu_target_name(target)), std::invalid_argument);
  }
}

}  // namespace
}  // namespace pion
