// SPDX-License-Identifier: Apache-2.0
#include "lab/run/safetensors.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "lab/run/durable_file.h"
#include "lab/run/shown_text.h"
#include "pion/optim/outside_text.h"

namespace pion::lab {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kLengthBytes = kSafetensorsLengthBytes;
constexpr std::uint64_t kLargestHeader = 100'000'000;  // the format's own limit
constexpr int kDeepest = 8;                            // levels; a header nests 3 deep

struct TypeRow {
  TensorType type;
  std::string_view tag;
  std::size_t bytes;
};
constexpr std::array<TypeRow, 8> kTypes = {{{TensorType::kBool, "BOOL", 1},
                                            {TensorType::kU8, "U8", 1},
                                            {TensorType::kI32, "I32", 4},
                                            {TensorType::kI64, "I64", 8},
                                            {TensorType::kF16, "F16", 2},
                                            {TensorType::kBF16, "BF16", 2},
                                            {TensorType::kF32, "F32", 4},
                                            {TensorType::kF64, "F64", 8}}};

std::uint64_t read_length(std::string_view bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  return value;
}

// Parses JSON that holds no key twice and is not deep. nlohmann keeps the last of two
// equal keys.
Json parse_json(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  std::string problem;
  if (json_nests_deeper(text, kDeepest))
    throw std::invalid_argument(where + ": the header nests too deep");
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second)
      throw std::invalid_argument(where + ": the header names \"" +
                                  shortened(parsed.get<std::string>()) + "\" twice");
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception&) {
    throw std::invalid_argument(
        where + ": the header is no JSON; this is no safetensors file, or a damaged one");
  }
}

std::uint64_t element_count(const std::vector<std::int64_t>& shape,
                            const std::string& where) {
  std::uint64_t count = 1;
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(size), &count))
      throw std::invalid_argument(where +
                                  ": the shape has more elements than 64 bits count");
  return count;
}

TensorRecord read_record(const Json& entry, const std::string& where) {
  const auto fail = [&](const std::string& what) {
    throw std::invalid_argument(where + ": " + what);
  };
  if (!entry.is_object()) fail("must be an object with dtype, shape and data_offsets");
  for (const auto& [key, value] : entry.items())
    if (key != "dtype" && key != "shape" && key != "data_offsets")
      fail("unknown member \"" + shortened(key) + "\"");
  TensorRecord record{};
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) fail("dtype must be text");
  const std::string tag = dtype->get<std::string>();
  const auto row = std::find_if(kTypes.begin(), kTypes.end(),
                                [&](const TypeRow& each) { return each.tag == tag; });
  if (row == kTypes.end())
    fail("dtype must be F32, F64, F16, BF16, I64, I32, U8 or BOOL, got \"" +
         shortened(tag) + "\"");
  record.type = row->type;
  const auto natural = [&](const Json& value, const char* what) -> std::uint64_t {
    if (!value.is_number_unsigned())
      fail(std::string(what) + " must hold whole numbers >= 0");
    return value.get<std::uint64_t>();
  };
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) fail("shape must be a list");
  for (const Json& size : *shape) {
    const std::uint64_t value = natural(size, "shape");
    if (value > std::numeric_limits<std::int64_t>::max())
      fail("the shape has more elements than 64 bits count");
    record.shape.push_back(static_cast<std::int64_t>(value));
  }
  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2)
    fail("data_offsets must be [begin, end]");
  record.begin = natural((*offsets)[0], "data_offsets");
  record.end = natural((*offsets)[1], "data_offsets");
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(element_count(record.shape, where),
                             std::uint64_t{row->bytes}, &bytes))
    fail("the shape has more bytes than 64 bits count");
  if (record.end < record.begin || record.end - record.begin != bytes)
    fail("data_offsets must span " + std::to_string(bytes) +
         " bytes for this shape and dtype, got [" + std::to_string(record.begin) + ", " +
         std::to_string(record.end) + "]");
  return record;
}

// Tensors follow one another from byte 0 to the file's end.
void check_layout(const SafetensorsHeader& header, std::uint64_t file_size,
                  const std::string& where) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
  for (const auto& [name, record] : header.tensors)
    spans.emplace_back(record.begin, record.end);
  std::sort(spans.begin(), spans.end());
  std::uint64_t expected = 0;
  for (const auto& [begin, end] : spans) {
    if (begin != expected)
      throw std::invalid_argument(
          where + ": tensors " + (begin < expected ? "overlap" : "leave a gap") +
          " at byte " + std::to_string(std::min(begin, expected)));
    expected = end;
  }
  const std::uint64_t data = file_size - header.data_start;
  if (data < expected)
    throw std::invalid_argument(where + ": truncated: needs " + std::to_string(expected) +
                                " bytes of data, has " + std::to_string(data));
  if (data > expected)
    throw std::invalid_argument(where + ": " + std::to_string(data - expected) +
                                " bytes follow the last tensor");
}

}  // namespace

std::string_view type_tag(TensorType type) {
  return kTypes[static_cast<std::size_t>(type)].tag;
}
std::size_t type_bytes(TensorType type) {
  return kTypes[static_cast<std::size_t>(type)].bytes;
}

std::uint64_t safetensors_start(std::string_view first, std::uint64_t file_size) {
  if (first.size() < kLengthBytes || file_size < kLengthBytes) return first.size();
  const std::uint64_t length = read_length(first);
  if (length > kLargestHeader) return kLengthBytes;
  return kLengthBytes + std::min(length, file_size - kLengthBytes);
}

SafetensorsHeader parse_safetensors(std::string_view start, std::uint64_t file_size,
                                    const std::string& where) {
  if (file_size < kLengthBytes || start.size() < kLengthBytes)
    throw std::invalid_argument(where +
                                ": truncated: no safetensors file has less than 8 bytes");
  const std::uint64_t length = read_length(start);
  if (length > kLargestHeader)
    throw std::invalid_argument(where + ": a header of " + std::to_string(length) +
                                " bytes; this is no safetensors file");
  if (length > file_size - kLengthBytes || length > start.size() - kLengthBytes)
    throw std::invalid_argument(where + ": truncated: the header has " +
                                std::to_string(length) + " bytes, the file " +
                                std::to_string(file_size - kLengthBytes) +
                                " after its length");
  const Json json = parse_json(start.substr(kLengthBytes, length), where);
  if (!json.is_object())
    throw std::invalid_argument(where + ": the header must be a JSON object");
  SafetensorsHeader header;
  header.data_start = kLengthBytes + length;
  for (const auto& [name, entry] : json.items()) {
    if (name != "__metadata__") {
      header.tensors.emplace(name,
                             read_record(entry, where + ": tensor \"" +
                                               shortened(name) + "\""));
      continue;
    }
    if (!entry.is_object())
      throw std::invalid_argument(where + ": __metadata__ must be an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string())
        throw std::invalid_argument(where + ": __metadata__ must hold text only");
      header.metadata.emplace(key, value.get<std::string>());
    }
  }
  check_layout(header, file_size, where);
  return header;
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(path_, error);
  std::ifstream file(path_, std::ios::binary);
  if (error || !file) throw std::invalid_argument(path_.string() + ": cannot be read");
  std::string start(std::min(size, kLengthBytes), '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(safetensors_start(start, size));
  file.seekg(0);
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (!file) throw std::invalid_argument(path_.string() + ": cannot be read");
  header_ = parse_safetensors(start, size, path_.string());
}

void SafetensorsFile::read(const TensorRecord& record, std::span<std::byte> into) const {
  if (into.size() != record.end - record.begin)
    throw std::invalid_argument("SafetensorsFile::read: needs a buffer of " +
                                std::to_string(record.end - record.begin) +
                                " bytes, got " + std::to_string(into.size()));
  std::ifstream file(path_, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(header_.data_start + record.begin));
  file.read(reinterpret_cast<char*>(into.data()),
            static_cast<std::streamsize>(into.size()));
  if (!file)
    throw std::invalid_argument(path_.string() +
                                ": cannot be read; was it changed meanwhile?");
}

void write_safetensors(const std::filesystem::path& path,
                       std::vector<TensorBytes> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorBytes& a, const TensorBytes& b) {
                     return type_bytes(a.type) > type_bytes(b.type);
                   });
  Json json = Json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const TensorBytes& tensor : tensors) {
    const std::string where = "write_safetensors: tensor \"" + tensor.name + "\"";
    if (tensor.name == "__metadata__" || json.contains(tensor.name))
      throw std::invalid_argument(where + ": the name is taken");
    if (tensor.data.size() !=
        element_count(tensor.shape, where) * type_bytes(tensor.type))
      throw std::invalid_argument(where + ": shape and data must have one size");
    json[tensor.name] = {{"dtype", type_tag(tensor.type)},
                         {"shape", tensor.shape},
                         {"data_offsets", {offset, offset + tensor.data.size()}}};
    offset += tensor.data.size();
  }
  std::string header = json.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');  // data begins at a multiple of 8
  std::string length(kLengthBytes, '\0');
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length[i] = static_cast<char>(header.size() >> 8 * i);
  DurableFile file(path, DurableFile::Mode::kCreate);
  file.write(length);
  file.write(header);
  for (const TensorBytes& tensor : tensors) file.write(tensor.data);
  file.close();
}

}  // namespace pion::lab
