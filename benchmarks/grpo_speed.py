# SPDX-License-Identifier: Apache-2.0
"""One GRPO step of `pion train` next to TRL's GRPOTrainer, the same tiny Qwen2 on the same task.

    python benchmarks/grpo_speed.py --pion build/release/apps/pion [--threads 1] [--rounds 3]

Both begin with one Hugging Face folder (hidden 128, 4 layers, 4 query and 2 key-value heads, 0.8 M
parameters) that has been fine-tuned on the arithmetic task until it writes answers: 32 prompts x 8 answers of at most 48
tokens at temperature 1, AdamW, f32, no KL, one optimizer step a rollout. They run in turns, a
process each; the first step of a process is left out. Rewards are computed by both. Needs trl.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, SAMPLES, NEW_TOKENS = 32, 8, 48


def make_model(binary: Path, folder: Path, updates: int) -> Path:
    """Fine-tunes a fresh model until it writes answers of the task's form, some of them right."""
    command = [
        str(binary), "train", "arithmetic_base", "--model.layers=4", "--model.mlp_size=384",
        "--model.context=128", f"--sft.updates={updates}", "--eval.problems=8", "--eval.retention=",
        f"--eval_every={updates}", "--out", str(folder), "--no-report",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def value_of(prompt: str) -> int:
    """Of "37+48-29:"."""
    return sum(int(term) for term in re.findall(r"[+-]?\d+", prompt))


def run_trl(folder: Path, threads: int, steps: int) -> None:
    """In a process of its own: prints seconds of every step but the first, as JSON."""
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(threads)
    draw = random.Random(1)
    problems = [
        "{}{}{}{}{}:".format(
            draw.randint(10, 99), draw.choice("+-"), draw.randint(10, 99), draw.choice("+-"),
            draw.randint(10, 99),
        )
        for _ in range(2048)
    ]  # fmt: skip
    tokens, generation, update = [], [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.begin = time.perf_counter()

        def on_step_end(self, *_, **__):
            update.append(time.perf_counter() - self.begin - generation[-1])

    def reward(prompts, completions, **_):
        tokens.append(sum(map(len, completions)) / len(completions))
        return [
            float(f"\\boxed{{{value_of(prompt)}}}" in completion) + 0.01 * ("boxed" in completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES,
            max_completion_length=NEW_TOKENS, max_steps=steps, learning_rate=1e-5, beta=0.0,
            temperature=1.0, logging_steps=1000, save_strategy="no", report_to=[], use_cpu=True,
            bf16=False, disable_tqdm=True, seed=1,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=reward, args=config, callbacks=[Clock()],
            train_dataset=Dataset.from_list([{"prompt": problem} for problem in problems]),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        )  # fmt: skip
        original = trainer._generate

        def generate(*arguments, **named):
            begin = time.perf_counter()
            result = original(*arguments, **named)
            generation.append(time.perf_counter() - begin)
            return result

        trainer._generate = generate
        trainer.train()
    print(json.dumps({"generation": generation[1:], "update": update[1:], "characters": tokens}))


def run_pion(binary: Path, folder: Path, threads: int, steps: int, out: Path) -> dict:
    command = [
        str(binary), "train", "rlvr_arithmetic", "--model.start=", f"--model.folder={folder}",
        f"--threads={threads}", f"--rl.updates={steps}", f"--rl.prompts={PROMPTS}",
        f"--rl.samples={SAMPLES}", f"--rl.max_new_tokens={NEW_TOKENS}", "--rl.minibatches=1",
        "--rl.reward_format=0.01", "--rl.kl_rows=0", "--optimizer=adamw",
        "--optimizer.matrices.lr=1e-5", "--eval.problems=8", "--eval.retention=",
        f"--eval_every={steps}", "--out", str(out), "--no-report",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"grpo_speed: {' '.join(command)}\n{result.stderr}")
    times = {"generation": [], "update": [], "length": []}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "update" and entry["step"] > 1:
            part = {key[8:]: s for key, s in entry["metrics"].items() if key.startswith("seconds_")}
            times["generation"].append(part["generation"])
            times["update"].append(sum(part.values()) - part["generation"])
            times["length"].append(entry["metrics"]["answer_length"])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pion", type=Path, default=ROOT / "build/release/apps/pion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of both, in turns")
    parser.add_argument("--steps", type=int, default=6, help="of a round, the first not counted")
    parser.add_argument("--sft-updates", type=int, default=200, help="before both")
    parser.add_argument("--trl", type=Path, help=argparse.SUPPRESS)  # the child
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1"}
    if given.trl:
        run_trl(given.trl, given.threads, given.steps)
        return
    parts = {"pion": {"generation": [], "update": []}, "trl": {"generation": [], "update": []}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(given.pion, Path(scratch) / "start", given.sft_updates)
        for round_ in range(given.rounds):
            ours = run_pion(
                given.pion, folder, given.threads, given.steps, Path(scratch) / f"run{round_}"
            )
            child = [sys.executable, __file__, "--trl", str(folder), "--threads", str(given.threads), "--steps", str(given.steps)]  # fmt: skip
            done = subprocess.run(child, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"grpo_speed: TRL failed\n{done.stderr}")
            theirs = json.loads(done.stdout.splitlines()[-1])
            for name, times in (("pion", ours), ("trl", theirs)):
                for part in parts[name]:
                    parts[name][part] += times[part]
            print(f"round {round_ + 1}: answers of {statistics.mean(ours['length']):.1f} tokens, "
                  f"TRL's {statistics.mean(theirs['characters']):.1f} characters", flush=True)  # fmt: skip
    print(
        "\n| seconds | TRL, least | median | pion, least | median | ratio of the least | of the medians |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in ("generation", "update", "step"):
        row = {}
        for side, times in parts.items():
            row[side] = [a + b for a, b in zip(times["generation"], times["update"], strict=True)] if name == "step" else times[name]  # fmt: skip
        least = {side: min(values) for side, values in row.items()}
        median = {side: statistics.median(values) for side, values in row.items()}
        print(f"| {name} | {least['trl']:.3f} | {median['trl']:.3f} | {least['pion']:.3f} | {median['pion']:.3f} "
              f"| {least['trl'] / least['pion']:.1f} | {median['trl'] / median['pion']:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
