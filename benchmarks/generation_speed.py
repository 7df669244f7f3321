# SPDX-License-Identifier: Apache-2.0
"""Question  How much faster are sampling and the gradient of a GRPO step than transformers'?
Run       python benchmarks/generation_speed.py [--binary FILE] [--threads 1] [--rounds 5]
          (needs transformers; the binary is build/release/benchmarks/generation_speed)
Results   docs/results/speed.md

Both sides sample 48 tokens for 32 prompts x 8 from the same weights (hidden 128, 4 layers, 4
heads over 2, 0.8 M parameters), then compute the gradient of the answers' log-probabilities, in
turns, and the best of each is printed. TRL's GRPOTrainer calls what is timed here, and more.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, logging

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, SAMPLES, PROMPT, NEW = 32, 8, 16, 48


def build_model():
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)


def transformers_times(model):
    """Seconds of sampling and of the gradient; all answers have all their tokens."""
    rows = [[(i * 7 + t * 3) % 64 for t in range(PROMPT)] for i in range(PROMPTS)]
    prompts = torch.tensor(rows).repeat_interleave(SAMPLES, 0)
    start = time.perf_counter()
    with torch.no_grad():
        made = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
        )
    middle = time.perf_counter()
    model.zero_grad()
    logits = model(made, logits_to_keep=NEW + 1).logits[:, :-1]
    chosen = torch.log_softmax(logits, -1).gather(2, made[:, PROMPT:, None])
    (-chosen.mean()).backward()
    return middle - start, time.perf_counter() - middle


def own_times(binary, folder, threads):
    result = Path(folder) / "result.json"
    words = [binary, "--model", folder, "--repetitions", 2, "--threads", threads]
    subprocess.run([*map(str, words), "--json", str(result)], check=True, capture_output=True)
    times = json.loads(result.read_text())
    return min(times["generate"]), min(times["gradient"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=ROOT / "build/release/benchmarks/generation_speed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    model = build_model()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        rounds = [
            (transformers_times(model), own_times(arguments.binary, folder, arguments.threads))
            for _ in range(arguments.rounds)
        ]
    for part, name in enumerate(("generation", "gradient")):
        theirs = min(one[0][part] for one in rounds)
        ours = min(one[1][part] for one in rounds)
        print(f"{name:11} transformers {theirs:.3f} s  pion {ours:.3f} s  {theirs / ours:.1f} x")


if __name__ == "__main__":
    main()
