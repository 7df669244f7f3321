// SPDX-License-Identifier: Apache-2.0
#include "lab/run/metrics_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <sstream>

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(MetricsLog, CutsToWholeLinesOfTheCheckpointAndContinues) {
  const fs::path path =
      fs::temp_directory_path() / ("pion_metrics_" + std::to_string(::getpid()));
  std::uint64_t kept = 0;
  {
    MetricsLog log(path, 0);
    log.write({{"step", 1}});
    kept = log.bytes();
    log.write({{"step", 2}, {"loss", std::nan("")}});
  }
  EXPECT_EQ(text_of(path), "{\"step\":1}\n{\"step\":2,\"loss\":null}\n");
  std::ofstream(path, std::ios::app) << "{\"step\":3,\"unfin";  // a killed write
  for (const std::uint64_t keep : {kept, kept + 3}) {  // the second ends within a line
    MetricsLog log(path, keep);
    EXPECT_EQ(log.bytes(), kept);
    log.write({{"step", 9}});
    EXPECT_EQ(log.bytes(), fs::file_size(path));
    EXPECT_EQ(text_of(path), "{\"step\":1}\n{\"step\":9}\n");
  }
  fs::remove(path);
}

TEST(MetricsLog, FollowsNoLink) {
  const std::string own = "pion_metrics_link_" + std::to_string(::getpid());
  const fs::path link = fs::temp_directory_path() / own;
  const fs::path elsewhere = fs::temp_directory_path() / (own + "_elsewhere");
  std::ofstream(elsewhere) << "kept\nas it is";
  fs::create_symlink(elsewhere, link);
  EXPECT_THROW(MetricsLog(link, 0), std::runtime_error);
  EXPECT_EQ(text_of(elsewhere), "kept\nas it is");
  fs::remove(link);
  fs::remove(elsewhere);
}

}  // namespace
}  // namespace pion::lab
