// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/map_form.h"

#include <gtest/gtest.h>

namespace pion {
namespace {

SpectralMap map_of(QuinticSequence sequence) {
  SpectralMap map;
  map.sequence = std::move(sequence);
  map.precision = Precision::kFast;
  return map;
}

// The cost model: Gram space where it is less work, and where the filter leaves what fp16
// holds.
TEST(MapForm, TakesGramSpaceWhereItIsLessWork) {
  const SpectralMap muon = map_of(muon_sequence("classic", 5));
  EXPECT_FALSE(map_form(muon, 512, 512).gram);
  EXPECT_TRUE(map_form(muon, 512, 1024).gram);
  EXPECT_TRUE(map_form(muon, 1024, 512).gram);
  using Segments = std::vector<std::pair<std::size_t, std::size_t>>;
  EXPECT_EQ(map_form(muon, 512, 1024).segments, (Segments{{0, 2}, {2, 5}}));
  const SpectralMap pion = map_of(high_pass_sequence(4, 5));
  EXPECT_EQ(map_form(pion, 512, 1024).segments, (Segments{{0, 5}}));
}

// Five steps of Muon, two segments: 4 r + 14 against 10 r + 5, by halves 3 r + 7 against
// 7.5 r + 2.5; equal at 1.5 and at 1.
TEST(MapForm, CountsSymmetricProductsByHalf) {
  const SpectralMap muon = map_of(muon_sequence("classic", 5));
  EXPECT_FALSE(map_form(muon, 512, 768).gram);
  EXPECT_TRUE(map_form(muon, 512, 769).gram);
  EXPECT_TRUE(map_form(muon, 512, 640).gram_by_halves);
  EXPECT_FALSE(map_form(muon, 512, 639).gram_by_halves);  // below 1 : 1.25
}

}  // namespace
}  // namespace pion
