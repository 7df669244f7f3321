// SPDX-License-Identifier: Apache-2.0
// A model as a table of its parameters, each with the part that it should play.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "pion/optim/routing.h"

namespace pion {

struct Expected {
  const char* name;
  std::vector<std::int64_t> shape;
  const char* module;
  Role role;
  std::vector<std::int64_t> heads = {1};  // where the rule is one for matrices
  int axis = 0;
  const char* tied_to = "";
};

inline void expect_roles(const char* model, const std::vector<Expected>& table,
                         const RoutingOptions& options = {}) {
  SCOPED_TRACE(model);
  std::vector<ParameterDescription> parameters;
  for (const Expected& e : table)
    parameters.push_back({e.name, e.shape, e.module, e.tied_to, "f32"});
  const Routing routing = route(parameters, options);
  ASSERT_EQ(routing.routes.size(), table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Route& r = routing.routes[i];
    EXPECT_EQ(role_name(r.role), role_name(table[i].role))
        << table[i].name << ": " << r.reason;
    EXPECT_EQ(is_matrix_rule(r.rule), is_matrix_role(table[i].role)) << table[i].name;
    EXPECT_FALSE(r.reason.empty()) << table[i].name;
    if (!is_matrix_rule(r.rule)) continue;
    EXPECT_EQ(r.heads.heads, table[i].heads) << table[i].name << ": " << r.reason;
    EXPECT_EQ(r.heads.axis, table[i].axis) << table[i].name;
  }
}

inline RoutingOptions with_heads(std::int64_t heads, std::int64_t kv_heads,
                                 std::int64_t head_dim) {
  RoutingOptions options;
  options.attention = {heads, kv_heads, head_dim};
  return options;
}

}  // namespace pion
