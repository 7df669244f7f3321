// SPDX-License-Identifier: Apache-2.0
#include "pion/kernels/tiles.h"

#include <gtest/gtest.h>

namespace pion {
namespace {
TEST(Tiles, T) {}
}  // namespace
}  // namespace pion
