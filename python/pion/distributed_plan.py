# SPDX-License-Identifier: Apache-2.0
"""Who steps what: the cost of a parameter, and owners of equal load."""

import heapq

# Seconds on one core, of the right order, as pion/optim/step_all.cc has them: they only decide who
# takes what.
_FLOPS_PER_SECOND = 1e11
_ELEMENTWISE_SECONDS = {"adamw": 0.4e-9, "sgd": 0.2e-9}
_SVD_RULES = ("low_rank_muon", "low_pass_muon")


def cost(cell) -> float:
    """About the seconds that a step of the parameter takes: of a matrix, two products with the long
    side of every block and five steps of a few of the short one, or an SVD."""
    rule, (count, rows, cols) = cell.plan.rule, cell.shape
    if not rule.is_matrix:
        return _ELEMENTWISE_SECONDS[rule.name] * cell.numel
    flops = 0.0
    for _, _, r, c in cell.plan.layout.blocks(rows, cols):
        m, n = min(r, c), max(r, c)
        flops += m * m * (20.0 * n if rule.name in _SVD_RULES else 4.0 * n + 20.0 * m)
    return count * flops / _FLOPS_PER_SECOND


def owners(costs: list[float], ranks: int, loads: list[float] | None = None) -> list[int]:
    """The rank that takes each: the dearest first, always to the rank with the least load. `loads`
    is what ranks have already. The same on every rank, since only the arguments count."""
    queue = [(load, rank) for rank, load in enumerate(loads or [0.0] * ranks)]
    heapq.heapify(queue)
    result = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, rank = heapq.heappop(queue)
        result[index] = rank
        heapq.heappush(queue, (load + costs[index], rank))
    return result
