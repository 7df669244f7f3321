# SPDX-License-Identifier: Apache-2.0
"""Question  Does a GRPO step of half a billion parameters fit in 16 GiB on a CPU, and where does its time go?
Run       python benchmarks/grpo_real_size.py [--pion FILE] [--threads 2] [--optimizer pion]
          (needs transformers and 2 GB of disk; nothing is downloaded)
Results   docs/results/speed.md

The shapes are those of Qwen2.5-0.5B, the weights random and bfloat16: 8 problems of 128 tokens,
4 answers of 64 tokens each. Random answers are never right, so every other one is rewarded: all
then have an advantage and are trained on.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, SAMPLES, PROMPT, NEW = 8, 4, 128, 64
REWARD = """
import itertools

turn = itertools.count()


def score(prompt, response, reference, extra):
    return next(turn) % 2
"""


def make_model(folder: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_problems(scratch: Path) -> Path:
    """Problems of PROMPT characters, each one a token; other tokens of the model decode to ""."""
    rows = [
        {"prompt": f"{i:05}: " + "x" * (PROMPT - 8), "answer": "0"} for i in range(256)
    ]  # the prompt ends with a newline
    source = scratch / "problems.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = scratch / "problems.safetensors"
    words = [source, "--tokenizer", "characters", "--out", out, "--held-out", "0.1"]
    subprocess.run(
        [sys.executable, "-m", "pion.prepare", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return out


def run(given: argparse.Namespace, scratch: Path) -> list[dict]:
    """Metrics of every update but the first."""
    recipe = f"""
        task = "rlvr"
        threads = {given.threads}
        checkpoint_every = 1000
        [model]
        folder = "{scratch / "model"}"
        gradient_checkpointing = {str(given.checkpointing).lower()}
        [data]
        source = "{make_problems(scratch)}"
        [rl]
        updates = {given.steps + 1}
        prompts = {PROMPTS}
        samples = {SAMPLES}
        max_new_tokens = {NEW}
        minibatches = 1
        micro_batch_tokens = {given.micro_batch_tokens}
        verifier = "turn_reward:score"
        kl_rows = 0
        [eval]
        problems = 1
        max_new_tokens = 1
        shown = 0
        [optimizer.matrices]
        rule = "{given.optimizer}"
        [optimizer.rest]
        rule = "adamw"
    """
    (scratch / "recipe.toml").write_text(recipe)
    (scratch / "turn_reward.py").write_text(REWARD)
    command = [given.pion, "train", scratch / "recipe.toml", "--out", scratch / "run"]
    command = [*map(str, command), "--no-report"]
    result = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(scratch), "PION_PYTHON": sys.executable},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"grpo_real_size: {' '.join(command)}\n{result.stderr}")
    lines = map(json.loads, (scratch / "run/metrics.jsonl").read_text().splitlines())
    return [line["metrics"] for line in lines if line["kind"] == "update"][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pion", type=Path, default=ROOT / "build/release/apps/pion")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--steps", type=int, default=2, help="that are timed, after one that is not"
    )
    parser.add_argument("--optimizer", default="pion")
    parser.add_argument("--micro-batch-tokens", type=int, default=768)
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=False)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_model(scratch / "model")
        updates = run(given, scratch)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print("| part | seconds |\n| --- | ---: |")
    parts = [key for key in updates[0] if key.startswith("seconds_")]
    for part in parts:
        least = min(update[part] for update in updates)
        print(f"| {part.removeprefix('seconds_')} | {least:.1f} |")
    print(f"| step | {min(sum(update[part] for part in parts) for update in updates):.1f} |")
    print(
        f"\n{PROMPTS} x {SAMPLES} answers, {updates[-1]['answer_length']:.0f} tokens long, "
        f"{updates[-1]['trained_answers']:.0f} trained on; least of {len(updates)} steps, "
        f"{given.optimizer}, {given.threads} threads; peak memory {peak:.1f} GiB"
    )


if __name__ == "__main__":
    main()
