// SPDX-License-Identifier: Apache-2.0
#include "pion/optim/routing.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "python/bindings/bindings.h"

namespace nb = nanobind;

namespace pion::python {
namespace {

using Parameters = std::vector<ParameterDescription>;
using Counts = std::vector<std::int64_t>;  // three of AttentionShape, or all five

AttentionShape attention_shape(const Counts& counts) {
  AttentionShape shape{counts.at(0), counts.at(1), counts.at(2)};
  if (counts.size() > 3) {
    shape.linear_key_heads = counts.at(3), shape.linear_value_heads = counts.at(4);
  }
  return shape;
}

Routing route_parameters(
    const Parameters& parameters, const BoundRule* matrices, const BoundRule* rest,
    bool per_head, const Counts& attention,
    const std::vector<std::pair<std::string, Counts>>& attention_by_name,
    const std::vector<std::pair<std::string, std::string>>& overrides, bool decay_vectors,
    const std::vector<std::pair<std::string, double>>& lr_by_role,
    const std::string& preset) {
  RoutingOptions options;
  if (matrices != nullptr) options.matrices = matrices->rule;
  if (rest != nullptr) options.rest = rest->rule;
  options.per_head = per_head;
  options.attention = attention_shape(attention);
  for (const auto& [glob, counts] : attention_by_name) {
    options.attention_by_name.emplace_back(glob, attention_shape(counts));
  }
  options.overrides = overrides;
  options.decay_vectors = decay_vectors;
  options.lr_by_role = lr_by_role;
  return preset.empty() ? route(parameters, options)
                        : route_preset(parameters, preset, options);
}

std::map<std::string, RuleValue> set_keys(const Rule& rule) {
  std::map<std::string, RuleValue> keys;
  for (RuleKey& key : rule_keys(rule)) {
    if (key.value) keys.emplace(key.name, *key.value);
  }
  return keys;
}

// A routing that was read for a model: checked, with what the model alone knows.
Routing read_for(const std::string& text, const Parameters& parameters,
                 const std::map<std::string, std::string>& renamed) {
  Routing routing = Routing::from_toml(text);
  std::map<std::string, bool> frozen;
  for (const ParameterDescription& p : parameters) frozen[p.name] = p.frozen;
  for (Route& route : routing.routes) {
    for (std::string* name : {&route.parameter.name, &route.parameter.tied_to}) {
      if (const auto to = renamed.find(*name); to != renamed.end()) *name = to->second;
    }
    route.parameter.frozen = frozen[route.parameter.name];
  }
  routing.check_against(parameters);
  return routing;
}

void bind_parts(nb::module_& module) {
  nb::class_<ParameterDescription>(module, "ParameterDescription",
                                   "What routing knows of one parameter.")
      .def(
          "__init__",
          [](ParameterDescription* self, std::string name,
             std::vector<std::int64_t> shape, std::string module_type,
             std::string tied_to, std::string dtype, bool frozen) {
            new (self) ParameterDescription{std::move(name),        std::move(shape),
                                            std::move(module_type), std::move(tied_to),
                                            std::move(dtype),       frozen};
          },
          nb::arg("name"), nb::arg("shape"), nb::arg("module_type") = "",
          nb::arg("tied_to") = "", nb::arg("dtype") = "", nb::arg("frozen") = false)
      .def_ro("name", &ParameterDescription::name)
      .def_ro("shape", &ParameterDescription::shape)
      .def_ro("module_type", &ParameterDescription::module_type)
      .def_ro("tied_to", &ParameterDescription::tied_to)
      .def_ro("dtype", &ParameterDescription::dtype)
      .def_ro("frozen", &ParameterDescription::frozen);
  nb::class_<Route>(module, "Route", "The decision for one parameter, with its reason.")
      .def_ro("parameter", &Route::parameter)
      .def_prop_ro("name", [](const Route& r) { return r.parameter.name; })
      .def_prop_ro("shape", [](const Route& r) { return r.parameter.shape; })
      .def_prop_ro("role", [](const Route& r) { return std::string(role_name(r.role)); })
      .def_prop_ro("rule", [](const Route& r) { return std::string(rule_name(r.rule)); })
      .def_prop_ro("is_matrix", [](const Route& r) { return is_matrix_rule(r.rule); })
      .def_prop_ro("keys", [](const Route& r) { return set_keys(r.rule); })
      .def_ro("heads", &Route::heads)
      .def_ro("keys_by_role", &Route::keys_by_role)
      .def_ro("reason", &Route::reason);
}

}  // namespace

void bind_routing(nb::module_& module) {
  bind_parts(module);
  nb::class_<Routing>(module, "RoutingTable", "Which parameter takes which rule.")
      .def_ro("routes", &Routing::routes)
      .def("table", &Routing::table)
      .def("to_toml", &Routing::to_toml)
      .def_static(
          "from_toml", [](const std::string& text) { return Routing::from_toml(text); },
          nb::arg("text"))
      .def_static("read_for", &read_for, nb::arg("text"), nb::arg("parameters"),
                  nb::arg("renamed"),
                  "The routing of a file for these parameters, names of the file renamed "
                  "first.");
  module.def("route", &route_parameters, nb::arg("parameters"),
             nb::arg("matrices").none(), nb::arg("rest").none(), nb::arg("per_head"),
             nb::arg("attention"), nb::arg("attention_by_name"), nb::arg("overrides"),
             nb::arg("decay_vectors"), nb::arg("lr_by_role"), nb::arg("preset"));
  module.def(
      "attention_shape_from_config",
      [](const std::string& json) {
        const AttentionShape shape = attention_shape_from_config(json);
        return Counts{shape.heads, shape.kv_heads, shape.head_dim, shape.linear_key_heads,
                      shape.linear_value_heads};
      },
      nb::arg("json"),
      "[heads, kv_heads, head_dim, linear_key_heads, linear_value_heads] of a Hugging "
      "Face config; 0 unknown.");
  module.def("presets", [] {
    std::vector<std::tuple<std::string, std::string, std::string>> all;
    for (Preset& p : presets()) all.emplace_back(p.name, p.source, p.description);
    return all;
  });
  module.def("role_names", &role_names);
}

}  // namespace pion::python
