# SPDX-License-Identifier: Apache-2.0
"""What is around an optimizer and its model: schedulers, optimizers that wrap it, modules that wrap
the model."""

import pytest
import torch
from judges import run
from small_models import Block, Language, decided, names_of
from torch import nn

import pion


def test_schedulers_that_cycle_momentum():
    model = Language()
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=4, cycle_momentum=False
    )
    for _ in range(3):
        run(optimizer, list(model.parameters()), 1)
        schedule.step()
    assert {g["lr"] for g in optimizer.param_groups} == {schedule.get_last_lr()[0]}
    matrices = pion.Muon([torch.nn.Parameter(torch.ones(4, 4))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(matrices, max_lr=1e-2, total_steps=4)
    run(matrices, matrices.param_groups[0]["params"], 1)
    schedule.step()
    assert matrices.param_groups[0]["momentum"] < 0.95  # 0.95 at the start, 0.85 at the top


@pytest.mark.parametrize("keys", [{}, {"momentum": 0.9}, {"betas": (0.8, 0.9)}])
def test_schedulers_that_cycle_momentum_refuse_groups_that_differ(keys):
    """Neither a bare KeyError nor a key that no rule reads, whatever the optimizer was given."""
    model = Language()
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-3, **keys)
    before = [dict(group) for group in optimizer.param_groups]
    for make in (
        lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=4),
        lambda: torch.optim.lr_scheduler.CyclicLR(optimizer, 1e-4, 1e-2),
    ):
        with pytest.raises(ValueError, match="must support momentum or beta1"):
            make()
    for group, kept in zip(optimizer.param_groups, before, strict=True):
        assert set(group) - set(kept) <= {"initial_lr", "max_lr", "min_lr"}
    # the keys still reach groups that come later
    later = [("later", nn.Parameter(torch.ones(4, 4)))]
    optimizer.add_param_group({"params": later, "rule": "muon"})
    assert optimizer.param_groups[-1]["momentum"] == keys.get("momentum", 0.95)


def test_schedulers_cycle_what_all_groups_have():
    parts = [nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))]
    groups = [{"params": [parts[0]], "rule": "muon"}, {"params": [parts[1]], "rule": "sgd"}]
    optimizer = pion.PionAdamW(groups, momentum=0.95)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=4)
    run(optimizer, parts, 1)
    schedule.step()
    assert {g["momentum"] < 0.95 for g in optimizer.param_groups} == {True}
    adamw = pion.PionAdamW([{"params": parts, "rule": "adamw"}])
    torch.optim.lr_scheduler.OneCycleLR(adamw, max_lr=1e-2, total_steps=4)
    assert adamw.param_groups[0]["betas"] == (0.95, 0.999)


class Sharpness(torch.optim.Optimizer):
    """Sharpness-aware minimization as its implementations are built: the base optimizer is made of
    the wrapper's groups, with its keys in them."""

    def __init__(self, params, base, rho=0.05, adaptive=False, **keys):
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **keys})
        self.base_optimizer = base(self.param_groups, **keys)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    def step(self, closure=None):
        rho = self.param_groups[0]["rho"]
        held = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in held]
        with torch.no_grad():
            for p in held:
                p.add_(p.grad, alpha=rho / p.grad.norm())
        closure()
        with torch.no_grad():
            for p, old in zip(held, before, strict=True):
                p.copy_(old)
        self.base_optimizer.step()


def test_wrappers_that_add_keys_to_their_groups():
    def after(make, sharp):
        weight = nn.Parameter(torch.linspace(-1, 1, 16).reshape(4, 4).clone())
        optimizer = make(weight)

        def closure():
            optimizer.zero_grad()
            (weight**4).sum().backward()

        closure()
        optimizer.step(closure) if sharp else optimizer.step()
        return weight.detach(), optimizer

    sharp, wrapper = after(lambda w: Sharpness([w], pion.Muon, rho=0.5, lr=0.1), True)
    assert wrapper.base_optimizer.param_groups[0]["rho"] == 0.5
    assert wrapper.base_optimizer.param_groups[0]["lr"] == 0.1
    plain, _ = after(lambda w: pion.Muon([w], lr=0.1), False)
    assert not torch.equal(sharp, plain)
    groups = [{"params": [nn.Parameter(torch.ones(4, 4))], "rule": "pion"},
              {"params": [nn.Parameter(torch.ones(4))], "rule": "adamw"}]  # fmt: skip
    made = Sharpness(groups, pion.PionAdamW, lr=0.1)
    assert [g["rho"] for g in made.base_optimizer.param_groups] == [0.05, 0.05]
    with pytest.raises(ValueError, match="rhoo"):
        pion.Muon([{"params": [nn.Parameter(torch.ones(4, 4))], "rhoo": 0.05}])


def test_names_do_not_hold_what_wrappers_add(tmp_path):
    model = Language()
    wanted = [r.name for r in pion.route(model).routes]
    compiled = torch.compile(model, backend="eager")
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for wrapped in (compiled, nn.DataParallel(model), nn.DataParallel(compiled), averaged):
        routing = pion.route(wrapped)
        assert [r.name for r in routing.routes] == wanted
        assert decided(routing) == decided(pion.route(model))
    by_pairs = pion.route(dict(compiled.named_parameters()), attention=(4, 2, 8))
    assert [r.name for r in by_pairs.routes] == wanted
    pion.bind_names(compiled)
    optimizer = pion.PionAdamW(compiled.parameters(), lr=1e-3)
    assert set(names_of(optimizer)) == set(wanted)
    # a part that is wrapped by itself, as activation checkpointing does
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    part = Language()
    part.layers[1] = checkpoint_wrapper(part.layers[1])
    assert [r.name for r in pion.route(part).routes] == wanted


def test_a_part_that_is_called_module_keeps_its_name():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = Block()
            self.lm_head = nn.Linear(32, 10)

    assert "module.up_proj.weight" in decided(pion.route(Outer()))


def test_globs_files_and_states_with_wrapped_names_are_read(tmp_path):
    model = Language()
    compiled = torch.compile(model, backend="eager")
    for glob in ("_orig_mod.layers.0.up_proj.*", "layers.0.up_proj.*"):
        got = decided(pion.route(compiled, overrides={glob: "rest"}))
        assert got["layers.0.up_proj.weight"][1] == "adamw"
    parallel = nn.DataParallel(model)
    got = decided(pion.route(parallel, attention_by_name={"module.layers.0.*": (2, 1, 16)}))
    assert got["layers.0.q_proj.weight"][2] == [2]
    # files that were written with such names
    text = pion.route(model).to_toml()
    for prefix, wrapped in (("_orig_mod.", compiled), ("module.", parallel)):
        old = text.replace('name = "', f'name = "{prefix}')
        for read in (wrapped, model):
            assert decided(pion.Routing.from_toml(old, read)) == decided(pion.route(model))
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-3)
    run(optimizer, list(model.parameters()), 1)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["param_names"] = [f"_orig_mod.{name}" for name in group["param_names"]]
    again = pion.PionAdamW(pion.route(model), lr=1e-3)
    again.load_state_dict(saved)
    assert names_of(again) == names_of(optimizer)


def test_safetensors_states_with_wrapped_names_are_read(tmp_path):
    files = pytest.importorskip("safetensors.torch")
    model = Language()
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-3)
    run(optimizer, list(model.parameters()), 1)
    pion.save_state(optimizer, tmp_path / "new")
    tensors = files.load_file(tmp_path / "new")
    old = {n if n == "optimizer.seed" else f"_orig_mod.{n}": t for n, t in tensors.items()}
    files.save_file(old, tmp_path / "old")
    again = pion.PionAdamW(pion.route(model), lr=1e-3)
    pion.load_state(again, tmp_path / "old")
    pion.save_state(again, tmp_path / "again")
    kept = files.load_file(tmp_path / "again")
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)
