// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/archive_values.h"

namespace pion {

using torch::serialize::InputArchive;

torch::IValue read_value(InputArchive& archive, const std::string& key) {
  torch::IValue value;
  TORCH_CHECK(archive.try_read(key, value), "load: the file must have the entry \"", key,
              "\", got none; it was not saved by this version of pion");
  return value;
}

std::string read_text(InputArchive& archive, const std::string& key) {
  const torch::IValue value = read_value(archive, key);
  TORCH_CHECK(value.isString(), "load: ", key, " must be text, got ", value.tagKind());
  return value.toStringRef();
}

bool read_flag(InputArchive& archive, const std::string& key) {
  const torch::IValue value = read_value(archive, key);
  TORCH_CHECK(value.isBool(), "load: ", key, " must be a truth value, got ",
              value.tagKind());
  return value.toBool();
}

double read_number(InputArchive& archive, const std::string& key) {
  const torch::IValue value = read_value(archive, key);
  TORCH_CHECK(value.isDouble(), "load: ", key, " must be a number, got ",
              value.tagKind());
  return value.toDouble();
}

std::int64_t read_integer(InputArchive& archive, const std::string& key, std::int64_t min,
                          std::int64_t max) {
  const torch::IValue value = read_value(archive, key);
  TORCH_CHECK(value.isInt() && value.toInt() >= min && value.toInt() <= max,
              "load: ", key, " must be an integer in [", min, ", ", max, "], got ",
              value);
  return value.toInt();
}

std::vector<std::int64_t> read_integers(InputArchive& archive, const std::string& key) {
  const torch::IValue value = read_value(archive, key);
  TORCH_CHECK(value.isIntList(), "load: ", key, " must be a list of integers, got ",
              value.tagKind());
  return value.toIntVector();
}

}  // namespace pion
