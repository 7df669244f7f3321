// SPDX-License-Identifier: Apache-2.0
// The safetensors format, github.com/huggingface/safetensors: 8 bytes header length
// (little endian), a JSON header, then the data of all tensors without gaps.
//
//   {"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
//    "__metadata__": {"key": "text"}}
//
// Differs from the format: only the types below are read; a tensor of another one, as I8
// or F8_E4M3, is a record that says so. A header has at most 100 MB, as there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab {

// kOther: of a type that is not read here, only named.
enum class TensorType { kBool, kU8, kI32, kI64, kF16, kBF16, kF32, kF64, kOther };
// Of those that are read: "F32" and its 4.
std::string_view type_tag(TensorType type);
std::size_t type_bytes(TensorType type);

// Where a tensor lies in a file.
struct TensorRecord {
  TensorType type;
  std::string tag;                  // the file's name of the type, "F32" or "F8_E4M3"
  std::vector<std::int64_t> shape;  // () is one number
  std::uint64_t begin, end;         // bytes after the header
};

// A checked header.
struct SafetensorsHeader {
  std::map<std::string, TensorRecord> tensors;
  std::map<std::string, std::string> metadata;
  std::uint64_t data_start;  // of the file
};

// Checks all of it: length, JSON, types, shapes (sizes that overflow), offsets (in order
// without gaps or overlaps, as long as shape and type say; types that the format does not
// name may have any length), no name twice, nothing after the last tensor. `start` holds
// the file's first bytes, at least the header; `file_size` is the file's. Throws
// std::invalid_argument that begins with `where`.
SafetensorsHeader parse_safetensors(std::string_view start, std::uint64_t file_size,
                                    const std::string& where);

// How many of a file's first bytes parse_safetensors needs, by the first
// kSafetensorsLengthBytes of them: the length and the header, or what the file has.
inline constexpr std::uint64_t kSafetensorsLengthBytes = 8;
std::uint64_t safetensors_start(std::string_view first, std::uint64_t file_size);

// Opens a file and checks its header; read() fetches the bytes of one tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::filesystem::path path);
  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return path_; }
  // `into` has end - begin bytes.
  void read(const TensorRecord& record, std::span<std::byte> into) const;

 private:
  std::filesystem::path path_;
  SafetensorsHeader header_;
};

// One tensor to write; data is contiguous, row-major, little endian.
struct TensorBytes {
  std::string name;
  TensorType type;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

// Writes a new file and fsyncs it; wider types come first, so that each tensor is
// aligned. Throws std::runtime_error if the disk is full or the path cannot be written.
void write_safetensors(const std::filesystem::path& path,
                       std::vector<TensorBytes> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace pion::lab
