// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "lab/report/run_record.h"

namespace pion::lab::report {

// routing.toml as {"columns": [...], "rows": [[text, ...], ...]}: the file's first array
// of tables, with name, shape, role, rule, heads, scale, lr and so on where it has them.
// Null if the text is not TOML or holds no such array.
Json routing_table(std::string_view toml);

}  // namespace pion::lab::report
