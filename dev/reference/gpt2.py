"""GPT-2 checkpoints of a few thousand weights, one quirk a case, and what transformers computes from them."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import layouts
from goldens import digits, write_golden

VOCAB, CONTEXT = 97, 80
PROMPTS = ([3], [60, 2, 2, 81, 33, 17, 54])
NEW_TOKENS = 64
# A gap between the two best logits that f32 arithmetic in any order cannot close.
LEAST_GAP = 0.05
# How far the goldens must move when the case's quirk is read wrongly; tests allow 1e-4.
LEAST_DIFFERENCE = 1e-3
MOST_SEEDS = 400


@dataclass
class Case:
    name: str
    quirk: str
    config: dict = field(default_factory=dict)
    layers: int = 1
    width: int = 32
    heads: int = 2
    context: int = CONTEXT
    prefix: str = "transformer."
    dtype: torch.dtype = torch.float32
    masks: torch.dtype | None = None
    tied_head_in_file: bool = False
    shards: int = 1
    gguf: str | None = None
    gguf_attention: str | None = None
    alignment: int = 32
    tokens: bool = False
    prompts: tuple = PROMPTS
    greedy_prompt: list = field(default_factory=lambda: [11, 42, 7, 90, 5, 28, 64, 1])
    new_tokens: int = NEW_TOKENS
    # Config fields whose wrong value must be seen in the goldens.
    mistaken: dict = field(default_factory=dict)


LONG_PROMPT = [(i * i * 7 + i * 13 + 5) % (VOCAB - 1) for i in range(96)]
SMALL = {"layers": 2, "config": {"n_inner": 64}}
WIDE = {"width": 256, "heads": 4, "config": {"n_inner": 256}, "context": 40, "new_tokens": 32}

CASES = [
    Case("gpt2-bare-keys-masks", "keys without a prefix; F32 `attn.bias` and `attn.masked_bias` buffers", layers=2,
         prefix="", masks=torch.float32, mistaken={"activation_function": "gelu"}),
    Case("gpt2-transformer-prefix", "keys under `transformer.`; BOOL `attn.bias` buffers", **SMALL,
         masks=torch.bool),
    Case("gpt2-untied-head", "`tie_word_embeddings` false and an `lm_head.weight` of its own",
         {"n_inner": 64, "tie_word_embeddings": False}),
    Case("gpt2-tied-head-in-file", "tied, and `lm_head.weight` is in the file as well", {"n_inner": 64},
         tied_head_in_file=True),
    Case("gpt2-f16", "F16 weights; the goldens are computed from them in f64", dtype=torch.float16),
    Case("gpt2-bf16", "BF16 weights; the goldens are computed from them in f64", dtype=torch.bfloat16),
    Case("gpt2-sharded", "two shards and `model.safetensors.index.json`", {"n_inner": 64}, shards=2),
    Case("gpt2-gelu", "`activation_function` gelu, which is the one with erf",
         {"activation_function": "gelu", "n_inner": 64},
         mistaken={"activation_function": "gelu_new"}),
    Case("gpt2-relu", "`activation_function` relu", {"activation_function": "relu", "n_inner": 64},
         mistaken={"activation_function": "gelu_new"}),
    Case("gpt2-width-40", "`n_embd` 40, which 32 does not divide: 4 heads of 10", {"n_inner": 80}, width=40,
         heads=4),
    Case("gpt2-n-inner", "`n_inner` 48 instead of four times the width", {"n_inner": 48}),
    Case("gpt2-context-160", "160 positions; the greedy text fills them to the last", {"n_inner": 64}, context=160,
         prompts=(LONG_PROMPT, LONG_PROMPT + LONG_PROMPT[:60]), greedy_prompt=LONG_PROMPT),
    Case("gpt2-inverse-layer-scale", "`scale_attn_by_inverse_layer_idx`: scores divided by the layer's number",
         {"n_inner": 64, "scale_attn_by_inverse_layer_idx": True}, layers=2, dtype=torch.float16,
         mistaken={"scale_attn_by_inverse_layer_idx": False}),
    Case("gpt2-unscaled-attention", "`scale_attn_weights` false: scores not divided by sqrt(head_dim)",
         {"n_inner": 64, "scale_attn_weights": False}, mistaken={"scale_attn_weights": True}),
    Case("gguf-f32", "GGUF, F32, with a vocabulary in the metadata", {"n_inner": 64}, gguf="F32", tokens=True),
    Case("gguf-f16-untied", "GGUF, F16, `output.weight`, 64-byte alignment",
         {"n_inner": 64, "tie_word_embeddings": False}, gguf="F16", alignment=64),
    Case("gguf-q8_0", "GGUF, Q8_0 matrices", **SMALL, gguf="Q8_0", tokens=True),
    Case("gguf-q4_0", "GGUF, Q4_0 matrices", **SMALL, gguf="Q4_0"),
    Case("gguf-q4_k", "GGUF, Q4_K matrices", **WIDE, gguf="Q4_K"),
    Case("gguf-q6_k", "GGUF, mixed as llama.cpp mixes: attention in Q4_K, the rest in Q6_K", **WIDE, gguf="Q6_K",
         gguf_attention="Q4_K"),
]


def make(case: Case, root: Path) -> None:
    """Write the case's folder, with the first seed whose greedy text is varied and free of near ties."""
    for seed in range(1, MOST_SEEDS):
        folder = root / case.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = write_checkpoint(case, folder, seed)
        golden = compute(case, model)
        if golden is not None:
            head = {"case": case.name, "quirk": case.quirk, "task": "generate", "seed": seed}
            write_golden(folder, head | golden)
            return
    raise SystemExit(f"{case.name}: no seed below {MOST_SEEDS} makes a good test")


def write_checkpoint(case: Case, folder: Path, seed: int) -> GPT2LMHeadModel:
    """Write the files and answer the model that transformers reads back from them, in f64."""
    config = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": VOCAB - 1, "embd_pdrop": 0.1, "eos_token_id": VOCAB - 1, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": case.context, "n_embd": case.width,
        "n_head": case.heads, "n_layer": case.layers, "n_positions": case.context, "resid_pdrop": 0.1,
        "vocab_size": VOCAB, **case.config,
    }
    tied = config.get("tie_word_embeddings", True)
    random = draw(GPT2LMHeadModel(GPT2Config(**config)), seed)
    if case.gguf:
        if tied:
            random.pop("lm_head.weight", None)
        file = folder / "model.gguf"
        tokens = [f"t{i}" for i in range(VOCAB - 1)] + ["<|endoftext|>"] if case.tokens else []
        kinds = {"attn": case.gguf_attention or case.gguf, "": case.gguf}
        layouts.write_gguf(file, config, random, kinds, case.alignment, tokens)
        stored = layouts.read_gguf(file, random, case.layers)
        model = GPT2LMHeadModel._from_config(GPT2Config(**config), attn_implementation="eager", dtype=torch.float64)
        missing, unknown = model.load_state_dict(stored, strict=False)
        assert not unknown and missing == (["lm_head.weight"] if tied else []), (missing, unknown)
        model.tie_weights()
        return model.eval()

    tensors = {}
    for name, tensor in random.items():
        if name != "lm_head.weight" or not tied or case.tied_head_in_file:
            name = case.prefix + name.removeprefix("transformer.") if name.startswith("transformer.") else name
            tensors[name] = tensor.to(case.dtype)
    if case.masks is not None:
        for layer in range(case.layers):
            lower = torch.ones(case.context, case.context).tril().view(1, 1, case.context, case.context)
            tensors[f"{case.prefix}h.{layer}.attn.bias"] = lower.to(case.masks)
            tensors[f"{case.prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    layouts.write_safetensors(folder, config, tensors, case.shards)
    model, info = GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert all("attn." in key for key in info["unexpected_keys"]), info
    return model.eval()


def draw(model: GPT2LMHeadModel, seed: int) -> layouts.Tensors:
    """Seeded weights under which attention looks around, GELU bends and the logits lie far apart."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, like in model.state_dict().items():
        noise = torch.from_numpy(generator.standard_normal(like.shape)).float()
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            tensors[name] = tensors["transformer.wte.weight"].clone()
        elif "wte" in name or "lm_head" in name:
            tensors[name] = 4.0 * noise / model.config.n_embd**0.5
        elif "wpe" in name:
            tensors[name] = 2.8 * noise / model.config.n_embd**0.5
        elif like.dim() == 2:  # Conv1D: (in, out)
            tensors[name] = noise * (1.6 if "c_attn" in name else 1.3) / like.shape[0] ** 0.5
        elif "ln_f.weight" in name:  # signs of both kinds, or a tied head would repeat the last token
            tensors[name] = noise
        elif ".ln_" in name and name.endswith("weight"):
            tensors[name] = 1 + 0.3 * noise
        else:
            tensors[name] = 0.2 * noise
    return tensors


@torch.no_grad()
def compute(case: Case, model: GPT2LMHeadModel) -> dict | None:
    """What to expect of the checkpoint, or None where this seed makes a poor test."""
    greedy = greedily(model, case.greedy_prompt, case.new_tokens)
    new = greedy["new_ids"]
    if greedy["min_top2_gap"] < LEAST_GAP or len(set(new)) < 12 or VOCAB - 1 in new:
        return None
    seen = model(torch.tensor([case.greedy_prompt + new]), output_attentions=True)
    focus = torch.stack([layer[..., 4:, :].max(dim=-1).values.mean() for layer in seen.attentions])
    if not all(0.2 < value < 0.95 for value in focus):
        return None

    prompts, f32_error, moved = [], 0.0, 0.0
    logits = [model(torch.tensor([ids])).logits[0] for ids in case.prompts]
    for ids, rows in zip(case.prompts, logits):
        first = max(0, len(ids) - 3) if len(ids) > 16 else 0
        prompts.append({"ids": ids, "first_position": first, "logits": digits(rows[first:])})
    single = GPT2LMHeadModel._from_config(model.config, attn_implementation="eager", dtype=torch.float32).eval()
    single.load_state_dict(model.state_dict())
    for ids, rows in zip(case.prompts, logits):
        f32_error = max(f32_error, (single(torch.tensor([ids])).logits[0] - rows).abs().max().item())
    assert f32_error < 2e-5, f"{case.name}: f32 is {f32_error} away from f64, too far for a tolerance of 1e-4"
    if case.mistaken:
        config = GPT2Config(**(model.config.to_dict() | case.mistaken))
        wrong = GPT2LMHeadModel._from_config(config, attn_implementation="eager", dtype=torch.float64).eval()
        wrong.load_state_dict(model.state_dict())
        for ids, rows in zip(case.prompts, logits):
            moved = max(moved, (wrong(torch.tensor([ids])).logits[0] - rows).abs().max().item())
        if moved < LEAST_DIFFERENCE:
            return None
    return {"prompts": prompts, "greedy": greedy}


def greedily(model: GPT2LMHeadModel, prompt: list[int], new_tokens: int) -> dict:
    """The greedy continuation, each step computed from scratch without a cache."""
    ids, logprobs, gap = list(prompt), [], float("inf")
    for _ in range(new_tokens):
        last = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = last.topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
        logprobs.append(last.log_softmax(dim=0)[ids[-1]])
        if gap < LEAST_GAP:
            break
    return {
        "prompt_ids": prompt, "new_ids": ids[len(prompt) :], "min_top2_gap": digits(torch.tensor(gap)),
        "logprobs": digits(torch.stack(logprobs)),
    }
