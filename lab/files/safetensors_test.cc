// SPDX-License-Identifier: Apache-2.0
#include "lab/files/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

std::string with_length(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> 8 * i);
  return file + header + data;
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors(file, file.size(), "x.safetensors");
}

std::string message_of(const std::string& file) {
  try {
    parse(file);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

struct TemporaryDirectory {
  fs::path path =
      fs::temp_directory_path() / ("pion_safetensors_" + std::to_string(::getpid()));
  TemporaryDirectory() { fs::create_directories(path); }
  ~TemporaryDirectory() { fs::remove_all(path); }
};

TEST(Safetensors, ReadsBackWhatItWrote) {
  const TemporaryDirectory directory;
  const std::vector<double> doubles = {1.5, -0.0, 1e300};
  const std::vector<std::int64_t> whole = {-1};
  const std::vector<std::uint8_t> bytes = {0, 1, 255, 7, 8};
  const fs::path path = directory.path / "a.safetensors";
  write_safetensors(
      path,
      {{"bytes", TensorType::kU8, {5}, std::as_bytes(std::span(bytes))},
       {"empty", TensorType::kF32, {0, 3}, {}},
       {"scalar", TensorType::kI64, {}, std::as_bytes(std::span(whole))},
       {"doubles", TensorType::kF64, {3, 1}, std::as_bytes(std::span(doubles))}},
      {{"format", "pt"}});
  const SafetensorsFile file(path);
  ASSERT_EQ(file.header().tensors.size(), 4u);
  EXPECT_EQ(file.header().metadata.at("format"), "pt");
  EXPECT_EQ(file.header().data_start % 8, 0u);
  const TensorRecord& record = file.header().tensors.at("doubles");
  EXPECT_EQ(record.shape, (std::vector<std::int64_t>{3, 1}));
  EXPECT_EQ(record.begin % 8, 0u);  // aligned
  std::vector<double> read(3);
  file.read(record, std::as_writable_bytes(std::span(read)));
  EXPECT_EQ(std::memcmp(read.data(), doubles.data(), 24), 0);
  EXPECT_TRUE(file.header().tensors.at("scalar").shape.empty());
}

TEST(Safetensors, RefusesWhatIsDamagedOrForeignAndSaysWhat) {
  const std::string one = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::string data(8, 'x');
  EXPECT_EQ(message_of(with_length(one, data)), "accepted");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "truncated"},
      {"1234567", "truncated"},
      {with_length(one, data).substr(0, 30), "truncated"},
      {with_length(one, "1234567"), "truncated"},
      {with_length(one, data + "y"), "follow the last tensor"},
      {std::string(8, '\xff') + one, "no safetensors file"},
      {with_length("no json", ""), "no JSON"},
      {with_length("[1]", ""), "JSON object"},
      {with_length(R"({"a":1})", ""), "must be an object"},
      {with_length(R"({"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}})", data),
       "dtype must be the name of a type as F32, got \"f32\""},
      {with_length(R"({"a":{"dtype":32,"shape":[2],"data_offsets":[0,8]}})", data),
       "dtype must be text"},
      {with_length(R"({"a":{"dtype":"I8","shape":[9],"data_offsets":[0,8]}})", data),
       "must span 9 bytes"},
      {with_length(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", data),
       "shape must hold"},
      {with_length(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", data),
       "shape must hold"},
      {with_length(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", data),
       "must span 12 bytes"},
      {with_length(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", data),
       "must span"},
      {with_length(
           R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
           ""),
       "64 bits"},
      {with_length(
           R"({"a":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]}})",
           ""),
       "64 bits"},
      {with_length(
           R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0]}})",
           ""),
       "64 bits"},
      {with_length(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           data),
       "twice"},
      {with_length(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
           data + "1234"),
       "overlap"},
      {with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", data),
       "gap"},
      {with_length(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":1}})",
                   data),
       "unknown member"},
      {with_length(R"({"__metadata__":{"a":1}})", ""), "text only"},
      {with_length(std::string(100000, '['), ""), "deep"},
  };
  for (const auto& [file, wanted] : cases) {
    const std::string message = message_of(file);
    EXPECT_NE(message.find(wanted), std::string::npos) << file.substr(0, 100) << "\n"
                                                       << message;
  }
}

// Bits of a number by the format's own list of types; the last is of no list.
TEST(Safetensors, NamesTypesThatItDoesNotRead) {
  const std::vector<std::pair<std::string, std::size_t>> types = {
      {"I8", 8},      {"I16", 16},    {"U16", 16},     {"U32", 32},    {"U64", 64},
      {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},  {"F6_E2M3", 6}, {"F6_E3M2", 6},
      {"F4", 4},      {"C64", 64},    {"F9_UNSEEN", 5}};
  for (const auto& [tag, bits] : types) {
    const std::size_t bytes = (3 * 5 * bits + 7) / 8;
    const std::string end = std::to_string(bytes);
    const SafetensorsHeader header = parse(
        with_length(R"({"a":{"dtype":")" + tag + R"(","shape":[3,5],"data_offsets":[0,)" +
                        end + R"(]},"b":{"dtype":"F32","shape":[1],"data_offsets":[)" +
                        end + "," + std::to_string(bytes + 4) + "]}}",
                    std::string(bytes + 4, 'x')));
    EXPECT_EQ(header.tensors.at("a").type, TensorType::kOther) << tag;
    EXPECT_EQ(header.tensors.at("a").tag, tag);
    EXPECT_EQ(header.tensors.at("b").type, TensorType::kF32);
  }
}

// Mutations of a valid file: each is either refused with std::invalid_argument, or every
// tensor of it can be read. AddressSanitizer sees the rest.
TEST(Safetensors, SurvivesMutations) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path / "fuzz.safetensors";
  const std::string valid = with_length(
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]}})",
      std::string(11, '\1'));
  const std::string spice = "0123456789[]{}\",:-e.\\x \xff";
  std::mt19937 random(20261122);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string file = valid;
    for (unsigned change = random() % 4 + 1; change > 0 && !file.empty(); --change) {
      const std::size_t at = random() % file.size();
      switch (random() % 4) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = spice[random() % spice.size()];
          break;
        case 2:
          file.erase(at, random() % 8 + 1);
          break;
        default:
          file.insert(at, file.substr(random() % file.size(), random() % 16));
          break;
      }
    }
    std::ofstream(path, std::ios::binary) << file;
    try {
      const SafetensorsFile opened(path);
      for (const auto& [name, record] : opened.header().tensors) {
        std::vector<std::byte> bytes(record.end - record.begin);
        opened.read(record, bytes);
      }
      ++accepted;
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace pion::lab
