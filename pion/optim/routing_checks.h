// SPDX-License-Identifier: Apache-2.0
// What route() and the routing file both hold parameters to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pion/optim/routing.h"

namespace pion {

std::string shape_text(const std::vector<std::int64_t>& shape);  // "[768, 3072]"

// Throws std::invalid_argument if a name is empty or there twice, a dimension is
// negative, or a shape has more entries than memory could hold.
void check_parameters(const std::vector<ParameterDescription>& parameters,
                      std::string_view where);
void check_parameter(const ParameterDescription& parameter, std::string_view where);

// Throws std::invalid_argument if a matrix rule meets fewer than two dimensions or its
// head layout does not fit the folded shape.
void check_route(const Route& route, std::string_view where);

}  // namespace pion
