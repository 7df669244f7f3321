// SPDX-License-Identifier: Apache-2.0
#include "pion/spectral/tile_policy.h"

#include <gtest/gtest.h>

#include "pion/spectral/coefficients.h"

namespace pion {
namespace {

SpectralMap map_of(const QuinticSequence& sequence, Precision precision) {
  SpectralMap map;
  map.sequence = sequence;
  map.precision = precision;
  return map;
}

// Five steps whose first `promotions` have the linear coefficient 1.875, Pion's, and the
// others 0.
QuinticSequence promotions(int count) {
  QuinticSequence sequence(5, Quintic{0, 1, 1});
  for (int k = 0; k < count; ++k) sequence[static_cast<std::size_t>(k)].a = 1.875;
  return sequence;
}
const QuinticSequence kMuon(5, Quintic{3.4445, -4.775, 2.0315});

TEST(TilePolicy, SplitsWhatTheMapMagnifies) {
  const auto policy = [](const QuinticSequence& sequence, std::int64_t rows,
                         std::int64_t cols, Precision precision = Precision::kFast) {
    return TilePolicy(map_of(sequence, precision), rows, cols);
  };
  // 1.875^2 = 3.5, ^3 = 6.6, ^4 = 12.4, 3.4445^5 = 485
  EXPECT_EQ(policy(promotions(2), 128, 512).split_from, 5u);
  EXPECT_EQ(policy(promotions(2), 127, 512).split_from, 2u);  // short sums
  EXPECT_EQ(policy(promotions(3), 128, 512).split_from, 3u);
  EXPECT_EQ(policy(promotions(4), 128, 512).split_from, 0u);
  EXPECT_FALSE(policy(promotions(4), 128, 512).rest_of_last);
  EXPECT_EQ(policy(kMuon, 128, 512).split_from, 0u);
  EXPECT_TRUE(policy(kMuon, 128, 512).rest_of_last);
  EXPECT_EQ(policy(promotions(2), 128, 512, Precision::kAccurate).split_from, 0u);
  EXPECT_TRUE(policy(promotions(2), 128, 512, Precision::kAccurate).rest_of_last);
  EXPECT_TRUE(policy(promotions(2), 47, 512).rest_of_last);  // tiny: as accurate
}

TEST(TilePolicy, RoundsXWhereADirectIterationMagnifiesMuch) {
  const auto round_x_from = [](const QuinticSequence& sequence, Precision precision) {
    return TilePolicy(map_of(sequence, precision), 256, 257).round_x_from;
  };
  EXPECT_EQ(round_x_from(kMuon, Precision::kFast), 2u);
  EXPECT_EQ(round_x_from(promotions(4), Precision::kFast), 5u);
  EXPECT_EQ(round_x_from(kMuon, Precision::kAccurate), 5u);
}

TEST(TilePolicy, MuonStartsAgainWhereThatIsCheaper) {
  const auto restart = [](const QuinticSequence& sequence, std::int64_t rows,
                          std::int64_t cols, Precision precision = Precision::kFast) {
    return TilePolicy(map_of(sequence, precision), rows, cols).restart;
  };
  EXPECT_EQ(restart(kMuon, 256, 768), 3u);
  EXPECT_EQ(restart(kMuon, 768, 256), 3u);
  EXPECT_EQ(restart(promotions(5), 256, 768), 3u);
  EXPECT_EQ(restart(promotions(4), 256, 768), 5u);
  EXPECT_EQ(restart(kMuon, 128, 1024), 5u);                       // too small
  EXPECT_EQ(restart(kMuon, 256, 8192), 5u);                       // too long
  EXPECT_EQ(restart(kMuon, 256, 257), 5u);                        // goes directly
  EXPECT_EQ(restart(kMuon, 256, 768, Precision::kAccurate), 5u);  // splits instead
  EXPECT_EQ(restart(QuinticSequence(5, Quintic{8, 0, 0}), 256, 768), 5u);  // 512 > 42
  EXPECT_EQ(restart(QuinticSequence(2, Quintic{4, 0, 0}), 256, 768), 2u);  // too few
}

// Linear coefficients of all steps but the last: 3.4445^4 = 141, ^5 = 485; 446 / 1.01^4;
// 471.
TEST(TilePolicy, SequencesThatMagnifyMuchAreNotForTiles) {
  EXPECT_TRUE(fits_tiles(muon_sequence("classic", 5)));
  EXPECT_FALSE(fits_tiles(muon_sequence("classic", 6)));
  EXPECT_TRUE(fits_tiles(muon_sequence("quintic", 5)));
  EXPECT_TRUE(fits_tiles(muon_sequence("polar_express", 4)));
  EXPECT_FALSE(fits_tiles(muon_sequence("polar_express", 5)));
  EXPECT_FALSE(fits_tiles(muon_sequence("cans", 5)));
  EXPECT_TRUE(fits_tiles({}));
}

TEST(TileWork, CountsWhatIsMultiplied) {
  const double m = 256, n = 768;
  const auto work = [](const QuinticSequence& sequence, Precision precision) {
    return tile_work(TilePolicy(map_of(sequence, precision), 256, 768), 256, 768);
  };
  const double half = m * m * m;
  const TileWork fast = work(promotions(2), Precision::kFast);
  EXPECT_EQ(fast.load, m * m * n);
  EXPECT_EQ(fast.apply, 17 * half);  // 3 + 4 + 4 + 4 + 2
  EXPECT_EQ(fast.update, 2 * m * m * n);
  EXPECT_EQ(work(promotions(3), Precision::kFast).apply,
            (3 + 4 + 4 + 3 * (4 + 2)) * half);
  const TileWork accurate = work(promotions(2), Precision::kAccurate);
  EXPECT_EQ(accurate.apply, 3 * 17 * half);
  EXPECT_EQ(accurate.update, 4 * m * m * n);
  // 3 + 4 + 2 products, a new X and Gram matrix, then 3 + 2 split ones
  const TilePolicy restarted(map_of(kMuon, Precision::kFast), 256, 768);
  EXPECT_EQ(tile_work(restarted, 256, 768).apply, (9 + 3 * 5) * half + 3 * m * m * n);
  // direct: 2 x 2, every step A^2 and P X, from the second on X X^T
  const TilePolicy direct(map_of(kMuon, Precision::kFast), 256, 256);
  EXPECT_EQ(tile_work(direct, 256, 256).apply, (4 + 5 * (1 + 2)) * half);
  EXPECT_EQ(tile_work(direct, 256, 256).update, 0);
}

}  // namespace
}  // namespace pion
