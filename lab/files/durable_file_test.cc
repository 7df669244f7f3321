// SPDX-License-Identifier: Apache-2.0
#include "lab/files/durable_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "lab/files/plain_name.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

class DurableFiles : public testing::Test {
 protected:
  DurableFiles() {
    fs::create_directories(folder_);
    std::ofstream(elsewhere_) << "kept\n";
    fs::create_symlink(elsewhere_, link_);
  }
  ~DurableFiles() override { fs::remove_all(folder_); }

  static std::string text_of(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  fs::path folder_ =
      fs::temp_directory_path() / ("pion_durable_" + std::to_string(::getpid()));
  fs::path elsewhere_ = folder_ / "elsewhere", link_ = folder_ / "link";
};

TEST_F(DurableFiles, ANewFileTakesTheLinksPlace) {
  {
    DurableFile file(link_, DurableFile::Mode::kCreate);
    file.write("new");
    file.close();
  }
  EXPECT_FALSE(fs::is_symlink(link_));
  EXPECT_EQ(text_of(link_), "new");
  EXPECT_EQ(text_of(elsewhere_), "kept\n");
}

TEST_F(DurableFiles, AReplacedFileAndItsTemporaryFollowNoLink) {
  fs::create_symlink(elsewhere_, link_.string() + ".tmp" + std::to_string(::getpid()));
  replace_file(link_, "new");
  EXPECT_FALSE(fs::is_symlink(link_));
  EXPECT_EQ(text_of(link_), "new");
  EXPECT_EQ(text_of(elsewhere_), "kept\n");
}

TEST_F(DurableFiles, WhatIsContinuedMustBeAFile) {
  const auto message = [](const fs::path& path) {
    try {
      DurableFile(path, DurableFile::Mode::kAppend);
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  expect_says(message(link_), "it is a link, which is not followed");
  fs::create_symlink(folder_ / "absent", folder_ / "dangling");
  expect_says(message(folder_ / "dangling"), "it is a link");
  EXPECT_FALSE(fs::exists(folder_ / "absent"));
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  expect_says(message(folder_ / "pipe"), "it must be a file");
  EXPECT_NE(message(folder_), "");
  EXPECT_EQ(text_of(elsewhere_), "kept\n");
}

TEST_F(DurableFiles, CountsWholeLinesAndCuts) {
  const std::string lines = "one\n" + std::string(5000, 'x') + "\nhalf";
  std::ofstream(elsewhere_) << lines;
  DurableFile file(elsewhere_, DurableFile::Mode::kAppend);
  EXPECT_EQ(file.whole_lines(lines.size() + 9), 5005u);
  EXPECT_EQ(file.whole_lines(5004), 4u);
  EXPECT_EQ(file.whole_lines(3), 0u);
  file.cut(4);
  file.write("two\n");
  EXPECT_EQ(text_of(elsewhere_), "one\ntwo\n");
}

TEST_F(DurableFiles, FoldersOfARunAreNoLinks) {
  EXPECT_NO_THROW(refuse_link(folder_));
  EXPECT_NO_THROW(refuse_link(folder_ / "absent"));
  fs::create_directory_symlink(folder_, folder_ / "checkpoints");
  expect_says(message_of([&] { refuse_link(folder_ / "checkpoints"); }),
              "must be a folder of the run itself, got a link");
}

}  // namespace
}  // namespace pion::lab
