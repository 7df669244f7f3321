// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pion::bench {

// The result of run_plan as Markdown, in parts that follow one another: the machine and
// its peaks, one table a group with the geometric means of its ratios, the stages, the
// error tables. Throws std::invalid_argument if it is no such result.
std::vector<std::string> markdown_parts(const nlohmann::ordered_json& result);
std::string markdown(const nlohmann::ordered_json& result);

// The same of a file's text.
std::string markdown_of_text(const std::string& json);

}  // namespace pion::bench
