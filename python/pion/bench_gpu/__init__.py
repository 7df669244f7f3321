# SPDX-License-Identifier: Apache-2.0
"""python -m pion.bench_gpu: what a step on a GPU computes and moves, counted without one (--count),
and how long it takes on the one at hand (--run); beside torch.optim.Muon and others."""
