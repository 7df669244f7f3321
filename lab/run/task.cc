// SPDX-License-Identifier: Apache-2.0
#include "lab/run/task.h"

namespace pion::lab {

RoutingOptions Task::routing_options(const Recipe& recipe) const {
  RoutingOptions options;
  options.matrices = recipe.matrices();
  options.rest = recipe.rest();
  options.per_head = recipe.flag("optimizer.per_head");
  options.attention = attention_shape();
  options.overrides = recipe.overrides();
  return options;
}

}  // namespace pion::lab
