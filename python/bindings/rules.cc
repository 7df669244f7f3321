// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "pion/optim/matrix_step.h"
#include "pion/spectral/map_form.h"
#include "python/bindings/bindings.h"

namespace nb = nanobind;

namespace pion::python {
namespace {

using Keys = std::map<std::string, RuleValue>;

BoundRule make_bound_rule(const std::string& name, const Keys& keys,
                          const std::string& where) {
  BoundRule result{make_rule(name)};
  for (const auto& [key, value] : keys) set_rule_key(result.rule, key, value);
  check_rule(result.rule, where);
  return result;
}

std::vector<std::tuple<std::string, std::string, std::optional<RuleValue>>> keys_of(
    const BoundRule& self) {
  std::vector<std::tuple<std::string, std::string, std::optional<RuleValue>>> result;
  for (RuleKey& key : rule_keys(self.rule)) {
    result.emplace_back(std::move(key.name), std::move(key.description),
                        std::move(key.value));
  }
  return result;
}

const char* name_of(SpectralMap::Kind kind) {
  switch (kind) {
    case SpectralMap::Kind::kPolynomial:
      return "polynomial";
    case SpectralMap::Kind::kLowRank:
      return "low_rank";
    case SpectralMap::Kind::kLowPass:
      return "low_pass";
  }
  return "";
}

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::kFast:
      return "fast";
    case Precision::kAccurate:
      return "accurate";
    case Precision::kF32:
      return "f32";
  }
  return "";
}

std::vector<std::tuple<double, double, double>> coefficients(const SpectralMap& map) {
  std::vector<std::tuple<double, double, double>> result;
  for (const Quintic& p : map.sequence) result.emplace_back(p.a, p.b, p.c);
  return result;
}

// As the fields of python/pion/map_forms.py.
auto form_of(const SpectralMap& map, std::int64_t rows, std::int64_t cols) {
  const MapForm& form = map_form(map, rows, cols);
  std::vector<std::vector<double>> steps;
  for (const FormStep& s : form.steps)
    steps.push_back({s.p.a, s.p.b, s.p.c, s.into, s.x_scale, s.gram_scale, s.t_scale,
                     s.q_scale, s.w_scale, s.slope});
  return std::make_tuple(std::move(steps), form.segments, form.aspect, form.fades,
                         form.gram, form.gram_by_halves);
}

void bind_map(nb::module_& module) {
  nb::class_<SpectralMap>(module, "SpectralMap",
                          "What a rule does to the singular values of one block.")
      .def_prop_ro("kind", [](const SpectralMap& map) { return name_of(map.kind); })
      .def_prop_ro("coefficients", &coefficients,
                   "(a, b, c) of every step X <- a X + (b A + c A^2) X, A = X X^T.")
      .def_prop_ro("spectral_norm",
                   [](const SpectralMap& map) {
                     return map.normalization == Normalization::kSpectral;
                   })
      .def_ro("norm_margin", &SpectralMap::norm_margin)
      .def_prop_ro("precision",
                   [](const SpectralMap& map) { return name_of(map.precision); })
      .def_ro("rank", &SpectralMap::rank)
      .def_ro("cutoff", &SpectralMap::cutoff)
      .def("form", &form_of, nb::arg("rows"), nb::arg("cols"),
           "How it is multiplied out in 16-bit products: pion.map_forms.form.")
      .def(
          "__call__",
          [](const SpectralMap& map, double s) { return evaluate(map.sequence, s); },
          nb::arg("s"), "The polynomial's value at one singular value.");
}

}  // namespace

void bind_rules(nb::module_& module) {
  bind_map(module);
  nb::class_<BoundRule>(module, "Rule",
                        "An update rule by name, its hyperparameters by key.")
      .def(
          "__init__",
          [](BoundRule* self, const std::string& name, const Keys& keys,
             const std::string& where) {
            new (self) BoundRule(make_bound_rule(name, keys, where));
          },
          nb::arg("name"), nb::arg("keys") = Keys{}, nb::arg("where") = "Rule")
      .def_prop_ro(
          "name", [](const BoundRule& self) { return std::string(rule_name(self.rule)); })
      .def_prop_ro("is_matrix",
                   [](const BoundRule& self) { return is_matrix_rule(self.rule); })
      .def("key_table", &keys_of, "(name, description, value or None) of every key.")
      .def_prop_rw(
          "lr", [](const BoundRule& self) { return learning_rate(self.rule); },
          [](BoundRule& self, double lr) {
            Rule changed = self.rule;
            set_rule_key(changed, "lr", lr);
            self.rule = std::move(changed);
          })
      .def(
          "map",
          [](const BoundRule& self, std::int64_t rows, std::int64_t cols) {
            return rule_map(self.rule, rows, cols);
          },
          nb::arg("rows"), nb::arg("cols"), "The map for a block of that shape.")
      .def(
          "scale",
          [](const BoundRule& self, std::int64_t rows, std::int64_t cols) {
            if (!is_matrix_rule(self.rule)) {
              throw std::invalid_argument(
                  "scale: the rule must be one for matrices, got " +
                  std::string(rule_name(self.rule)));
            }
            return rule_scale(*matrix_rule(self.rule), rows, cols);
          },
          nb::arg("rows"), nb::arg("cols"),
          "The factor s for a block of that shape; under \"unit_rms\" the root mean "
          "square that the block is rescaled to.")
      .def(
          "half_pass",
          [](const BoundRule& self, std::int64_t rows, std::int64_t cols) {
            if (!std::holds_alternative<PionRule>(self.rule)) return 0.0;
            return half_pass_point(rule_map(self.rule, rows, cols).sequence);
          },
          nb::arg("rows"), nb::arg("cols"),
          "Pion: the singular value, relative to the norm, of which half passes.");
  module.def("rule_names", &rule_names, "Names of all rules.");
  module.def("nearest_name", &nearest_name, nb::arg("name"), nb::arg("candidates"),
             "The nearest of the candidates, or an empty text.");
  module.attr("UNIT_RMS_FLOOR") = kUnitRmsFloor;
}

}  // namespace pion::python
