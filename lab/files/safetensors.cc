// SPDX-License-Identifier: Apache-2.0
#include "lab/files/safetensors.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_set>

#include "lab/files/durable_file.h"
#include "lab/files/shown_text.h"

namespace pion::lab {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kLengthBytes = kSafetensorsLengthBytes;
constexpr std::uint64_t kLargestHeader = 100'000'000;  // the format's own limit
// a header nests 3 deep; a parser that recurses must not be led further
constexpr std::size_t kDeepest = 8;

struct TypeRow {
  TensorType type;
  std::string_view tag;
  std::size_t bits;
};
// In the order of TensorType, then those that are only named; all that the format has.
constexpr std::array<TypeRow, 20> kTypes = {
    {{TensorType::kBool, "BOOL", 8},     {TensorType::kU8, "U8", 8},
     {TensorType::kI32, "I32", 32},      {TensorType::kI64, "I64", 64},
     {TensorType::kF16, "F16", 16},      {TensorType::kBF16, "BF16", 16},
     {TensorType::kF32, "F32", 32},      {TensorType::kF64, "F64", 64},
     {TensorType::kOther, "I8", 8},      {TensorType::kOther, "I16", 16},
     {TensorType::kOther, "U16", 16},    {TensorType::kOther, "U32", 32},
     {TensorType::kOther, "U64", 64},    {TensorType::kOther, "F8_E4M3", 8},
     {TensorType::kOther, "F8_E5M2", 8}, {TensorType::kOther, "F8_E8M0", 8},
     {TensorType::kOther, "F6_E2M3", 6}, {TensorType::kOther, "F6_E3M2", 6},
     {TensorType::kOther, "F4", 4},      {TensorType::kOther, "C64", 64}}};

std::uint64_t read_length(std::string_view bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  return value;
}

// Sees that no object holds a key twice, of which a parser keeps one, and that nothing is
// deep. A callback of Json::parse could say the same, but looks through the whole header
// after every tensor.
class HeaderCheck : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderCheck(const std::string& where) : where_(where) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    throw std::invalid_argument(where_ + ": the header names \"" + shortened(name) +
                                "\" twice");
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
    return false;
  }

 private:
  bool open() {
    if (keys_.size() > kDeepest)
      throw std::invalid_argument(where_ + ": the header nests too deep");
    keys_.emplace_back();
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  const std::string& where_;
  std::vector<std::unordered_set<std::string>> keys_;  // of what is open; none in arrays
};

Json parse_json(std::string_view text, const std::string& where) {
  HeaderCheck check(where);
  if (!Json::sax_parse(text.begin(), text.end(), &check))
    throw std::invalid_argument(
        where + ": the header is no JSON; this is no safetensors file, or a damaged one");
  return Json::parse(text.begin(), text.end());
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

// Names of types that the format may get are taken, other text is not.
bool is_type_name(const std::string& tag) {
  const auto good = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !tag.empty() && tag.size() <= 16 && std::all_of(tag.begin(), tag.end(), good);
}

// Elements of less than a byte lie without gaps; a whole tensor begins at a byte.
std::uint64_t byte_count(const std::vector<std::int64_t>& shape, std::size_t bits,
                         const std::string& where) {
  const std::uint64_t count = element_count(shape, where);
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(count / 8, std::uint64_t{bits}, &bytes) ||
      __builtin_add_overflow(bytes, (count % 8 * bits + 7) / 8, &bytes))
    throw std::invalid_argument(where + ": the shape has more bytes than 64 bits count");
  return bytes;
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
  record.tag = dtype->get<std::string>();
  if (!is_type_name(record.tag))
    fail("dtype must be the name of a type as F32, got \"" + record.tag.substr(0, 32) +
         "\"");
  const auto row = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& each) {
    return each.tag == record.tag;
  });
  record.type = row == kTypes.end() ? TensorType::kOther : row->type;
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
  std::uint64_t bytes = record.end - record.begin;
  if (row != kTypes.end()) bytes = byte_count(record.shape, row->bits, where);
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
  return kTypes[static_cast<std::size_t>(type)].bits / 8;
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
      header.tensors.emplace(
          name, read_record(entry, where + ": tensor \"" + shortened(name) + "\""));
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
