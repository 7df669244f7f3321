# SPDX-License-Identifier: Apache-2.0
"""distribute, gather_state: replicas of a model, as of DistributedDataParallel, share the work of
the optimizer's step and its state.

Parameters that fully_shard has made DTensors need neither: their steps are shared as they are.
"""

from pion import distributed_replicas as replicas
from pion.optimizer import check_own


def distribute(optimizer, process_group=None):
    """Ranks that hold the same parameters and gradients step a part of them each.

        optimizer = pion.distribute(pion.PionAdamW(pion.route(model), lr=1e-3))

    Every parameter is stepped by one rank, chosen by cost so that all have the same to do, and sent
    to the others in large messages: the weights are the same bits on all ranks, and those of one
    process without it. Momentum and other state live with the owner alone, 1/N of it on each of N
    ranks. Without it DistributedDataParallel works too: then every rank steps everything.

    Call it after init_process_group, on every rank; `process_group` None is all of them. In a
    single process it does nothing. Returns the optimizer. step() then has to be called on every
    rank; an error on one raises on all. Before state_dict(), pion.save_state, copies or a
    distributed checkpoint call gather_state.
    """
    check_own(optimizer, "distribute")
    if optimizer.replicas is not None:
        raise ValueError("distribute: the optimizer must not be distributed already")
    if not replicas.check_group(process_group):
        return optimizer
    cells = [cell for _, cell in optimizer.named_cells()]
    if not replicas.parameters_alike(optimizer, process_group):
        raise ValueError(
            "distribute: every rank must have the same parameters in the same order, got others on "
            "some; build model and optimizer alike on all ranks"
        )
    if all(cell.shard is not None for cell in cells):
        raise ValueError(
            "distribute: the optimizer must have parameters that are no DTensors, got none; what "
            "fully_shard has made shares its work without it"
        )
    optimizer.replicas = replicas.Replicas(process_group)
    return optimizer


def gather_state(optimizer, rank: int | None = None):
    """Brings the whole state of a distributed optimizer to the host memory of that rank of its
    group, a buffer at a time; or, with None, to the device of every rank.

        pion.gather_state(optimizer, rank=0)            # on every rank
        if torch.distributed.get_rank() == 0:
            torch.save(optimizer.state_dict(), path)

    The next step forgets again what others own. Loading needs nothing: load_state_dict takes the
    whole state on every rank, saved at any number of them. Does nothing for other optimizers.
    """
    if getattr(optimizer, "replicas", None) is not None:
        optimizer.replicas.gather(optimizer, rank)
