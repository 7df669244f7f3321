// SPDX-License-Identifier: Apache-2.0
// Update rules on plain arrays, without a framework: all that pion::optim offers.
//
//   rules by name and key            pion/optim/rule.h
//   one matrix                       matrix_step, pion/optim/matrix_step.h
//   AdamW, SGD                       adamw_step, sgd_step
//   all parameters on all threads    step_all, pion/optim/step_all.h
//   which parameter takes which rule route, pion/optim/routing.h
//
// This header, pion/torch/pion.h and pion/version.h are pion's interface; other headers
// come along with them and may move.
#pragma once

#include "pion/bfloat16.h"
#include "pion/executor.h"
#include "pion/matrix_view.h"
#include "pion/optim/adamw.h"
#include "pion/optim/head_layout.h"
#include "pion/optim/matrix_step.h"
#include "pion/optim/muon.h"
#include "pion/optim/pion.h"
#include "pion/optim/routing.h"
#include "pion/optim/rule.h"
#include "pion/optim/sgd.h"
#include "pion/optim/step_all.h"
#include "pion/version.h"
