// SPDX-License-Identifier: Apache-2.0
// What the tests of the control tasks share.
#pragma once

#include <gtest/gtest.h>

#include "lab/tasks/control_task.h"

namespace pion::lab {

// An optimizer that steps every parameter of the task by `rule`.
inline std::unique_ptr<Optimizer> optimizer_for(Task& task, const Rule& rule) {
  RoutingOptions options;
  options.matrices = rule;
  return make_optimizer(
      task.model(), route(task.model(), every_parameter_is_a_matrix(std::move(options))));
}

inline Rule sgd_rule(double lr) {
  SgdRule rule;
  rule.lr = lr;
  rule.momentum = 0.95;
  return rule;
}

inline Rule muon_rule(double lr) {
  MuonRule rule;
  rule.lr = lr;
  rule.nesterov = false;
  return rule;
}

// Updates begin .. end-1 with the rate falling linearly to 0 over the whole run.
inline void run_updates(Task& task, Optimizer& optimizer, std::int64_t begin,
                        std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    optimizer.set_lr_factor(1.0 -
                            static_cast<double>(i) / static_cast<double>(task.updates()));
    task.update(i, optimizer);
  }
}

inline Json run_task(Task& task, const Rule& rule) {
  const auto optimizer = optimizer_for(task, rule);
  run_updates(task, *optimizer, 0, task.updates());
  return task.evaluate();
}

// A run that is saved half-way, loaded into a task and an optimizer that were never used,
// and continued must end at the weights of the run that went through, bit for bit.
template <class MakeTask>
void expect_resume_changes_nothing(MakeTask make_task, const Rule& rule) {
  const auto whole = make_task(), first = make_task(), second = make_task();
  const std::int64_t half = whole->updates() / 2, end = whole->updates();
  run_task(*whole, rule);

  const auto first_optimizer = optimizer_for(*first, rule);
  run_updates(*first, *first_optimizer, 0, half);
  TensorMap tensors;
  Json state = Json::object();
  first->save(tensors, state);

  const auto second_optimizer = optimizer_for(*second, rule);
  second->load(tensors, Json::parse(state.dump()));
  const torch::NoGradGuard no_grad;
  for (const auto& item : first->model().named_parameters()) {
    second->model().named_parameters()[item.key()].copy_(item.value());
  }
  second_optimizer->load_state_tensors(first_optimizer->state_tensors());
  run_updates(*second, *second_optimizer, half, end);
  for (const auto& item : whole->model().named_parameters()) {
    EXPECT_TRUE(
        torch::equal(second->model().named_parameters()[item.key()], item.value()))
        << rule_name(rule) << " " << item.key();
  }
}

}  // namespace pion::lab
