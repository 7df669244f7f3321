// SPDX-License-Identifier: Apache-2.0
#include "lab/files/weight_index.h"

#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "lab/files/plain_name.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

using IndexJson = nlohmann::json;

}  // namespace

std::vector<std::string> parse_weight_index(std::string_view json,
                                            const std::string& where) {
  const IndexJson index = try_json<IndexJson>(json);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty())
    throw std::invalid_argument(where +
                                ": must be a JSON object with weight_map, an object");
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!is_file_name(name))
      throw std::invalid_argument(
          where + ": weight_map must name files of this folder, got " +
          file.dump(-1, ' ', true, IndexJson::error_handler_t::replace) +
          " for tensor \"" + tensor + "\"");
    names.insert(name);
  }
  return {names.begin(), names.end()};
}

}  // namespace pion::lab
