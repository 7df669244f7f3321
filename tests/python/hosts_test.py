# SPDX-License-Identifier: Apache-2.0
"""pion inside other people's training loops: their own loops, their own checkpoints."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import torch
import zoo
from pion.hosts.transformers import RoutedPionAdamW

import pion

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for one another by spinning are no help to models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def example(name: str) -> dict:
    """Runs the script and returns its variables."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def inner(optimizer):
    """The optimizer in a host's wrappers."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    assert type(optimizer) is pion.PionAdamW
    return optimizer


def same_weights(one, other) -> bool:
    other = dict(other.named_parameters())
    return all(torch.equal(p, other[n]) for n, p in one.named_parameters())


# transformers


def trainer(model, folder, optimizer=None, steps=4, arguments=None, **keys):
    from transformers import Trainer, TrainingArguments

    tokens = torch.randint(3, 64, (64, 12), generator=torch.Generator().manual_seed(0))
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=8, report_to=[], use_cpu=True,
        disable_tqdm=True, logging_steps=1, save_steps=2, **(arguments or {}),
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in tokens]
    if optimizer is not None:
        keys["optimizers"] = (optimizer, None)
    return Trainer(model, arguments, train_dataset=data, **keys)


def test_trainer_example():
    made = example("transformers_trainer")["trainer"]
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert float(losses[-1]) < 0.7 * float(losses[0])
    optimizer = inner(made.optimizer)
    assert {g["rule"] for g in optimizer.param_groups} == {"pion", "adamw"}
    # the Trainer's schedule reached every group: a cosine to 0
    assert all(g["initial_lr"] == 5e-3 and g["lr"] < 1e-5 for g in optimizer.param_groups)
    decayed = {n: g["weight_decay"] for g in optimizer.param_groups for n in g["param_names"]}
    expected = set(made.get_decay_parameter_names(made.model)) & set(decayed)
    assert {n for n, decay in decayed.items() if decay} == expected


def test_trainer_resumes_from_its_checkpoint_bit_for_bit(tmp_path):
    keys = {"lr": 1e-2, "rules": {"matrices": {"rule": "muon", "steps": 4}}}
    whole, half = zoo.qwen3(), zoo.qwen3()
    choice = {"optimizer_cls_and_kwargs": (RoutedPionAdamW, keys)}
    trainer(whole, tmp_path, **choice).train()
    trainer(half, tmp_path, **choice).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same_weights(whole, half)


def test_trainer_arguments_reach_the_routed_optimizer(tmp_path):
    """TrainingArguments' weight decay and betas, unless the keys have their own."""
    own = {"weight_decay": 0.2, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6}
    for keys, decay, betas in (
        ({}, 0.2, (0.8, 0.9)),
        ({"weight_decay": 0.0, "betas": (0.7, 0.9)}, 0.0, (0.7, 0.9)),
    ):
        choice = {"optimizer_cls_and_kwargs": (RoutedPionAdamW, {"lr": 1e-2, **keys})}
        made = trainer(zoo.qwen3(), tmp_path, arguments=own, **choice)
        made.create_optimizer()
        groups = {n: g for g in inner(made.optimizer).param_groups for n in g["param_names"]}
        query, norm = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
        assert groups[query]["weight_decay"] == decay
        assert groups[norm]["weight_decay"] == 0.0
        assert (groups[norm]["betas"], groups[norm]["eps"]) == (betas, 1e-6)
    # momentum SGD has neither betas nor eps
    rules = {"matrices": "muon", "rest": {"rule": "sgd", "momentum": 0.9}}
    choice = {"optimizer_cls_and_kwargs": (RoutedPionAdamW, {"lr": 1e-2, "rules": rules})}
    made = trainer(zoo.qwen3(), tmp_path, arguments=own, **choice)
    made.create_optimizer()
    assert {g["rule"] for g in inner(made.optimizer).param_groups} == {"muon", "sgd"}
    assert RoutedPionAdamW()(zoo.qwen3()).param_groups[0]["weight_decay"] == 0.0  # without one


def test_trainer_takes_an_optimizer(tmp_path):
    model = zoo.gpt2()
    before = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    made = trainer(model, tmp_path, pion.PionAdamW(pion.route(model), lr=1e-2), steps=2)
    made.train()
    assert not torch.equal(model.transformer.h[0].attn.c_attn.weight, before)


def test_trainer_makes_groups_without_names(tmp_path):
    """Two groups, with and without weight decay, of bare parameters."""
    choice = {"optimizer_cls_and_kwargs": (pion.PionAdamW, {"lr": 1e-2, "betas": (0.9, 0.95)})}
    model = zoo.qwen2()
    with pytest.raises(ValueError, match=r"bind_names"):
        trainer(model, tmp_path, **choice).train()
    pion.bind_names(model)
    made = trainer(model, tmp_path, steps=2, **choice)
    made.train()
    groups = {n: g for g in inner(made.optimizer).param_groups for n in g["param_names"]}
    query, norm = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
    assert (groups[query]["rule"], groups[query]["heads"]) == ("pion", 4)
    assert (groups[norm]["rule"], groups[norm]["weight_decay"]) == ("adamw", 0.0)
    assert groups[norm]["betas"] == (0.9, 0.95)


# TRL


def test_sft_example():
    pytest.importorskip("trl")
    made = example("trl_sft")["trainer"]
    losses = [float(entry["loss"]) for entry in made.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert {g["rule"] for g in inner(made.optimizer).param_groups} == {"pion", "adamw"}


def test_grpo_example():
    pytest.importorskip("trl")
    made = example("trl_grpo")["trainer"]
    rewards = [float(entry["reward"]) for entry in made.state.log_history if "reward" in entry]
    assert rewards[-1] > rewards[0]
    assert inner(made.optimizer).state


# Lightning


def test_lightning_example_resumes_bit_for_bit(tmp_path):
    pytest.importorskip("lightning")
    variables = example("lightning_module")
    fit = variables["fit"]
    torch.manual_seed(1)
    whole = fit(3, str(tmp_path / "whole"))
    torch.manual_seed(1)
    half = fit(2, str(tmp_path / "half"))
    checkpoint = half.checkpoint_callback.best_model_path
    torch.manual_seed(2)  # other weights, which the checkpoint replaces
    resumed = fit(3, str(tmp_path / "half"), resume=checkpoint)
    assert same_weights(whole.lightning_module, resumed.lightning_module)
    assert not same_weights(half.lightning_module, resumed.lightning_module)
    rates = {g["lr"] for g in inner(resumed.optimizers[0]).param_groups}
    assert len(rates) == 1
    assert rates.pop() < 1e-2


# Accelerate


def test_accelerate_example(capsys):
    optimizer = inner(example("accelerate_loop")["optimizer"])
    first, second, again = capsys.readouterr().out.strip().splitlines()
    assert second.split()[:4] == again.split()[:4]
    assert float(second.split()[3]) < float(first.split()[3])
    # accumulation: 32 batches an epoch are 16 steps, of two epochs
    assert {int(state["step"]) for state in optimizer.state.values()} == {32}


# verl


def test_verl_example(capsys):
    pytest.importorskip("verl")
    optimizer = example("verl_optimizer")["optimizer"]
    first, *_, last = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("without names: PionAdamW: parameters must have a rule or a name")
    assert float(last.split()[-1]) < 2.5
    rules = {g["rule"]: g for g in optimizer.param_groups}
    assert set(rules) == {"muon", "adamw"}
    assert rules["adamw"]["betas"] == (0.9, 0.99)
    assert rules["muon"]["weight_decay"] == rules["adamw"]["weight_decay"] == 0.01


def test_verl_engine_binds_names():
    pytest.importorskip("verl")
    import pion.hosts.verl  # noqa: F401  as actor_rollout_ref.model.external_lib does
    from verl.workers.config.optimizer import FSDPOptimizerConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    engine = object.__new__(FSDPEngine)  # its constructor wants GPUs and a process group
    engine.rank = 0
    engine.optimizer_config = FSDPOptimizerConfig(
        optimizer_impl="pion", optimizer="PionAdamW", lr=1e-6, total_training_steps=10
    )
    optimizer = engine._build_optimizer(zoo.qwen3())
    groups = {n: g for g in optimizer.param_groups for n in g["param_names"]}
    assert groups["model.layers.0.self_attn.o_proj.weight"]["head_axis"] == 1
    assert groups["model.embed_tokens.weight"]["rule"] == "adamw"
    schedule = engine._build_lr_scheduler(optimizer)
    assert schedule.get_last_lr() == [1e-6] * len(optimizer.param_groups)


@pytest.fixture
def process_group():
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_verl_factory_on_a_sharded_model(process_group):
    """FSDP2 as verl wraps a model, and its moves of the state between steps."""
    pytest.importorskip("verl")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from verl.utils.fsdp_utils import load_fsdp_optimizer, offload_fsdp_optimizer
    from verl.workers.config.optimizer import FSDPOptimizerConfig, build_optimizer

    config = FSDPOptimizerConfig(optimizer_impl="pion", optimizer="PionAdamW", lr=1e-2)
    mesh, losses = init_device_mesh("cpu", (1,)), {}
    for sharded in (False, True):
        model = zoo.qwen2()
        for module in (*model.model.layers, model) if sharded else ():
            fully_shard(module, mesh=mesh)
        optimizer = build_optimizer(pion.bind_names(model).parameters(), config)
        assert {g["rule"] for g in optimizer.param_groups} == {"pion", "adamw"}
        losses[sharded] = []
        for _ in range(3):
            loss = model(**zoo.batch(model)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            offload_fsdp_optimizer(optimizer)
            load_fsdp_optimizer(optimizer, "cpu")
            losses[sharded].append(loss.item())
    assert losses[True] == losses[False]
    assert losses[True][2] < losses[True][0]


# LeRobot


def test_lerobot_example(tmp_path):
    pytest.importorskip("draccus")
    # LeRobot's data sets import torchvision, of which no CPU build matches this torch; the
    # optimizer uses nothing of it
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "transforms.py").touch()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(EXAMPLES / "lerobot_config.py"), "--optimizer.lr=3e-2"]
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    losses = [float(line.split()[-1]) for line in run.stdout.strip().splitlines()]
    assert len(losses) == 3
    assert losses[-1] < 0.7 * losses[0]
