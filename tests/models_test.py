# SPDX-License-Identifier: Apache-2.0
"""Models of `transformers` through `pion generate` and the C++ model, and back.

PION_BINARY names the command; needs the packages of the extra `test` (transformers, tokenizers).
"""

import json
import os
import subprocess

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from cli_command import BAD_INPUT, BINARY, needs_binary, pion

pytestmark = needs_binary
TOOL = BINARY.parent.parent / "lab/models/lab_language_tool"
needs_tool = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built")

VOCAB, NEW = 97, 24
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": VOCAB - 1,
    "bos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen2.5-tied": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 24}),
    "qwen3-bias": (transformers.Qwen3Config, {"head_dim": 16, "attention_bias": True}),
    "llama": (transformers.LlamaConfig, {}),
    "llama-bias": (transformers.LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama3-rope": (transformers.LlamaConfig, {"rope_parameters": LLAMA3}),
}
PROMPTS = [[5, 6, 7, 11, 3], [9, 2]]


def build(name, folder, dtype=torch.float32, **saving):
    """A model with gains and biases of their own, as saved and loaded by transformers."""
    kind, more = MODELS[name]
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(kind(**{**SIZES, **more}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, **saving)
    return load(folder)


def load(folder):
    model, information = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    assert not any(information.values()), information
    return model.eval()


def greedy(model, prompts=PROMPTS):
    """New tokens by transformers, prompts padded on the left; up to the stop token."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    made = model.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0
    )[:, width:].tolist()
    stop = SIZES["eos_token_id"]
    return [line[: line.index(stop) + 1] if stop in line else line for line in made]


def own_greedy(folder, prompt, **options):
    words = ["generate", folder, "--tokens", ",".join(map(str, prompt))]
    result = pion(*words, "--max-new-tokens", NEW, "--threads", 1, cwd=folder, check=0, **options)
    return [int(token) for token in result.stdout.split(",")]


def run_tool(folder, target):
    """Our logits of PROMPTS, greedy answers of all in one batch; saves the model to `target`."""
    request = {"prompts": PROMPTS, "max_new_tokens": NEW}
    result = subprocess.run(
        [TOOL, folder, target],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@needs_tool
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_greedy_answers_are_those_of_transformers(name, tmp_path):
    sharded = {"max_shard_size": "100KB"} if name in ("qwen3", "llama") else {}
    model = build(name, tmp_path / "in", **sharded)
    assert (tmp_path / "in/model.safetensors.index.json").exists() == bool(sharded)
    own = run_tool(tmp_path / "in", tmp_path / "out")
    for prompt, logits in zip(PROMPTS, own["logits"], strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0]
        # logits of size 9 from f32 sums of at most 112 terms through 3 layers, in two orders
        assert (torch.tensor(logits) - expected).abs().max() <= 5e-5
    assert own["answers"] == greedy(model)
    # what we saved is the same model for transformers
    again = load(tmp_path / "out")
    with torch.no_grad():
        tokens = torch.tensor(PROMPTS[:1])
        assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert again.generation_config.eos_token_id == SIZES["eos_token_id"]


def changed_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@needs_tool
def test_a_tied_model_of_safetensors_own_save_model(tmp_path):
    import safetensors.torch

    model = build("qwen2.5-tied", tmp_path / "in")
    safetensors.torch.save_model(model, str(tmp_path / "in/model.safetensors"), {"format": "pt"})
    stored = safetensors.torch.load_file(tmp_path / "in/model.safetensors")
    assert "lm_head.weight" in stored
    assert "model.embed_tokens.weight" not in stored
    assert run_tool(tmp_path / "in", tmp_path / "out")["answers"] == greedy(model)


# Keys of config.json that the classes of transformers read beside sizes: each changes the
# logits there, so they are honoured here or refused.
@needs_tool
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"rope_theta": None, "rope_parameters": {"rope_theta": 77.0}}),
        ("llama", {"rope_parameters": None, "rope_theta": 77.0}),
        ("llama", {"rope_parameters": None, "rope_scaling": LLAMA3}),
        ("llama", {"rope_parameters": {"rope_theta": 3.0}, "rope_scaling": LLAMA3}),
        (
            "llama",
            {
                "rope_parameters": {
                    key: value
                    for key, value in LLAMA3.items()
                    if key != "original_max_position_embeddings"
                }
            },
        ),
        ("llama", {"original_max_position_embeddings": 16, "rope_parameters": LLAMA3}),
        ("qwen2", {"rms_norm_eps": 0.5}),
        ("qwen3", {"hidden_act": "swish"}),
    ],
)
def test_keys_of_config_json_mean_what_they_mean_to_transformers(name, changes, tmp_path):
    build(name, tmp_path / "in")
    changed_config(tmp_path / "in", **changes)
    model = load(tmp_path / "in")
    own = run_tool(tmp_path / "in", tmp_path / "out")
    for prompt, logits in zip(PROMPTS, own["logits"], strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0]
        assert (torch.tensor(logits) - expected).abs().max() <= 5e-5  # as above
    assert own["answers"] == greedy(model)


@needs_tool
@pytest.mark.parametrize("name", ["qwen2.5-tied", "qwen3"])
def test_bfloat16_weights(name, tmp_path):
    model = build(name, tmp_path / "in", torch.bfloat16)
    assert model.dtype == torch.bfloat16
    own = run_tool(tmp_path / "in", tmp_path / "out")
    exact = load(tmp_path / "in").float()
    for prompt, logits in zip(PROMPTS, own["logits"], strict=True):
        with torch.no_grad():
            theirs = model(torch.tensor([prompt])).logits[0].float()
            truth = exact(torch.tensor([prompt])).logits[0]
        # as close to f32 arithmetic on the same weights as transformers is, twice at most
        assert (torch.tensor(logits) - truth).norm() <= 2 * (theirs - truth).norm()
    again = load(tmp_path / "out")
    assert again.dtype == torch.bfloat16
    for (key, ours), theirs in zip(
        again.named_parameters(), dict(model.named_parameters()).values(), strict=True
    ):
        assert torch.equal(ours, theirs), key


def test_the_command_continues_tokens(tmp_path):
    model = build("qwen3", tmp_path / "m")
    expected = greedy(model, PROMPTS[:1])[0]
    assert own_greedy(tmp_path / "m", PROMPTS[0]) == expected
    sampled = [
        pion(
            *["generate", "m", "--tokens", "5,6", "--samples", 3, "--temperature", 1.5],
            *["--top-k", 20, "--top-p", 0.9, "--seed", seed, "--max-new-tokens", 8],
            cwd=tmp_path,
            check=0,
        ).stdout.splitlines()
        for seed in (1, 1, 2)
    ]
    assert len(sampled[0]) == 3
    assert len(set(sampled[0])) == 3
    assert sampled[0] == sampled[1] != sampled[2]


def byte_level_tokenizer(size):
    """Of `size` tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[: size - 1]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(["1+2=3"], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_tokens_that_only_the_model_knows_are_shown(tmp_path):
    folder = tmp_path / "m"
    model = build("qwen2", folder)
    fast = byte_level_tokenizer(60)
    fast.save_pretrained(folder)
    made = greedy(model, [fast("1+2=")["input_ids"]])[0]
    assert any(token >= 60 for token in made) and any(token < 60 for token in made)
    expected = "".join(fast.decode([t]) if t < 60 else "\ufffd" for t in made)
    python = {"PION_PYTHON": os.environ.get("PION_PYTHON", os.sys.executable)}
    words = ["generate", folder, "--prompt", "1+2=", "--max-new-tokens", NEW]
    assert pion(*words, cwd=tmp_path, check=0, environment=python).stdout == expected + "\n"


def test_the_command_continues_text(tmp_path):
    folder = tmp_path / "m"
    model = build("qwen2", folder)
    fast = byte_level_tokenizer(VOCAB)
    fast.save_pretrained(folder)
    prompt = fast("1+2=")["input_ids"]
    expected = fast.decode(greedy(model, [prompt])[0], skip_special_tokens=True)
    python = {"PION_PYTHON": os.environ.get("PION_PYTHON", os.sys.executable)}
    words = ["generate", folder, "--prompt", "1+2=", "--max-new-tokens", NEW]
    assert pion(*words, cwd=tmp_path, check=0, environment=python).stdout == expected + "\n"
    # as a user's message, by the folder's template
    chat = [*words, "--chat"]
    none = pion(*chat, cwd=tmp_path, check=BAD_INPUT, environment=python)
    assert "no chat template; leave --chat out" in none.stderr
    fast.chat_template = "{% for m in messages %}1{{ m['content'] }}+{% endfor %}"
    fast.save_pretrained(folder)
    prompt = fast("11+2=+")["input_ids"]
    asked = fast.decode(greedy(model, [prompt])[0], skip_special_tokens=True)
    assert pion(*chat, cwd=tmp_path, check=0, environment=python).stdout == asked + "\n"
    assert pion(*words, cwd=tmp_path, check=0, environment=python).stdout == expected + "\n"
    (folder / "tokenizer.json").unlink()
    failed = pion(*words, cwd=tmp_path, check=BAD_INPUT, environment=python)
    assert "tokenizer.json" in failed.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--tokens", "1"], "nowhere: must be a model folder, got nothing"),
        (["m"], "one of --tokens and --prompt must be given"),
        (["m", "--tokens", "1,x"], '--tokens must be token ids as 5,6,7, got "1,x"'),
        (["m", "--tokens", "97"], "tokens must be in [0, 97), got 97"),
        (["m", "--tokens", "1", "--max-new-tokens", "256"], "at most 256 tokens together"),
        (["m", "--tokens", "1", "--top-p", "0.9"], "--temperature above 0"),
        (["m", "--tokens", "1", "--top-k", "5"], "--temperature above 0"),
        (["m", "--tokens", "1", "--chat"], "--chat needs --prompt"),
        (
            ["m", "--tokens", "1", "--temperature", "1", "--top-p", "2"],
            "top_p must be in (0, 1], got 2",
        ),
        (["m", "--tokens", "1", "--tok-k", "2"], "--top-k"),
    ],
)
def test_bad_input_is_explained(words, message, tmp_path):
    build("qwen2", tmp_path / "m")
    result = pion("generate", *words, cwd=tmp_path, check=BAD_INPUT)
    assert message in result.stderr
    assert result.stdout == ""
