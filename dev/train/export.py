"""Writes the model folders: 8-bit GGUF for the writers, f16 safetensors for the critic, configs and tokenizers.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names of tensors and keys as llama.cpp has them for GPT-2.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification, GPT2LMHeadModel

ALIGNMENT = 32
F32, F16, Q8_0 = 0, 1, 8
BLOCK = 32
"""Weights that share a scale in Q8_0."""
Q8_0_BLOCK = np.dtype([("scale", "<f2"), ("values", "i1", BLOCK)])
BLOCK_TENSORS = {
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


def quantize(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q8_0 scales, f16 `(blocks,)`, and values, i8 `(blocks, 32)`: scale = largest / 127, value = round(w / scale)."""
    blocks = matrix.astype(np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = blocks * inverse[:, None]
    values = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))  # halves away from zero, as C's roundf
    return scale.astype(np.float16), values.astype(np.int8)


def stored(name: str, tensor: torch.Tensor) -> tuple[int, np.ndarray, bytes]:
    """How a tensor is kept: its GGUF type, the values that a reader gets back, and the bytes."""
    array = tensor.detach().float().cpu().numpy()
    if array.ndim == 1:
        return F32, array, array.tobytes()
    if name == "position_embd.weight":
        half = array.astype(np.float16)
        return F16, half.astype(np.float32), half.tobytes()
    scale, values = quantize(array)
    packed = np.empty(len(scale), Q8_0_BLOCK)
    packed["scale"], packed["values"] = scale, values
    back = (values.astype(np.float32) * scale.astype(np.float32)[:, None]).reshape(array.shape)
    return Q8_0, back, packed.tobytes()


def gguf_tensors(model: GPT2LMHeadModel) -> dict[str, tuple[str, bool]]:
    """GGUF name -> (the name in PyTorch, whether it is transposed: Conv1D keeps `(in, out)`, GGUF `(out, in)`)."""
    names = {
        "token_embd.weight": ("transformer.wte.weight", False),
        "position_embd.weight": ("transformer.wpe.weight", False),
    }
    for n in range(model.config.n_layer):
        for ours, theirs in BLOCK_TENSORS.items():
            for part in ("weight", "bias"):
                matrix = part == "weight" and "norm" not in ours
                names[f"blk.{n}.{ours}.{part}"] = (f"transformer.h.{n}.{theirs}.{part}", matrix)
    for part in ("weight", "bias"):
        names[f"output_norm.{part}"] = (f"transformer.ln_f.{part}", False)
    return names


def gguf_value(value: str | int | float) -> bytes:
    """A metadata value with its type: string, u32 or f32."""
    if isinstance(value, str):
        return struct.pack("<IQ", 8, len(value.encode())) + value.encode()
    return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)


def write_gguf(path: Path, name: str, model: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
    """Writes the model; returns the weights as a reader gets them back, under their names in PyTorch."""
    c = model.config
    metadata = {
        "general.architecture": "gpt2", "general.name": name, "general.license": "MIT OR Apache-2.0",
        "general.file_type": 7, "general.quantization_version": 2,
        "gpt2.context_length": c.n_positions, "gpt2.embedding_length": c.n_embd, "gpt2.feed_forward_length": 4 * c.n_embd,
        "gpt2.block_count": c.n_layer, "gpt2.attention.head_count": c.n_head,
        "gpt2.attention.layer_norm_epsilon": float(c.layer_norm_epsilon), "gpt2.vocab_size": c.vocab_size,
    }  # fmt: skip
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    weights, infos, data, back = model.state_dict(), b"", b"", {}
    names = gguf_tensors(model)
    for ours, (theirs, transposed) in names.items():
        tensor = weights[theirs].T.contiguous() if transposed else weights[theirs]
        kind, values, packed = stored(ours, tensor)
        values = torch.from_numpy(values)
        back[theirs] = values.T.contiguous() if transposed else values
        shape = list(reversed(tensor.shape))
        infos += text(ours) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += packed + bytes(-len(packed) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), len(metadata))
    head += b"".join(text(key) + gguf_value(value) for key, value in metadata.items()) + infos
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)
    back["lm_head.weight"] = back["transformer.wte.weight"]
    return back


def read_gguf(path: Path, model: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
    """The weights of a file by `write_gguf`, in f32, under their names in PyTorch; `model` has the sizes."""
    data, at = path.read_bytes(), 0

    def take(form: str) -> tuple:
        nonlocal at
        values = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return values

    def text() -> str:
        (length,) = take("<Q")
        return take(f"<{length}s")[0].decode()

    magic, version, tensors, entries = take("<4sIQQ")
    if (magic, version) != (b"GGUF", 3):
        raise SystemExit(f"expected GGUF version 3 in {path}, got {magic!r} version {version}")
    for _ in range(entries):
        text()  # the name
        text() if take("<I") == (8,) else take("4x")
    infos = {}
    for _ in range(tensors):
        name, (dimensions,) = text(), take("<I")
        infos[name] = (tuple(reversed(take(f"<{dimensions}Q"))), *take("<IQ"))
    start, weights = at + -at % ALIGNMENT, {}
    for ours, (theirs, transposed) in gguf_tensors(model).items():
        shape, kind, offset = infos[ours]
        if kind == Q8_0:
            blocks = np.frombuffer(data, Q8_0_BLOCK, math.prod(shape) // BLOCK, start + offset)
            array = blocks["values"].astype(np.float32) * blocks["scale"].astype(np.float32)[:, None]
        else:
            array = np.frombuffer(data, {F32: "<f4", F16: "<f2"}[kind], math.prod(shape), start + offset)
        tensor = torch.from_numpy(array.astype(np.float32).reshape(shape))
        weights[theirs] = tensor.T.contiguous() if transposed else tensor
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    return weights


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_tokenizer(folder: Path, tokenizer: Tokenizer, settings: dict) -> None:
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n", "utf-8")
    write_json(folder / "tokenizer_config.json", settings)


def export_writer(folder: Path, name: str, model: GPT2LMHeadModel, tokenizer: Tokenizer) -> GPT2LMHeadModel:
    """Writes a writer's folder; returns the model with the weights as stored, in f32 on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    c = model.config
    back = write_gguf(folder / "model.gguf", name, model)
    write_json(folder / "config.json", {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
        "vocab_size": c.vocab_size, "n_positions": c.n_positions, "n_ctx": c.n_positions, "n_embd": c.n_embd,
        "n_layer": c.n_layer, "n_head": c.n_head, "n_inner": None, "layer_norm_epsilon": c.layer_norm_epsilon,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
    })  # fmt: skip
    write_json(folder / "generation_config.json", {
        "bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "max_length": 128, **SAMPLING,
    })  # fmt: skip
    write_tokenizer(folder, tokenizer, {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "add_prefix_space": False, "model_max_length": c.n_positions,
    })  # fmt: skip
    config = type(c).from_dict({**c.to_dict(), "activation_function": "gelu_new"})
    reader = GPT2LMHeadModel(config)
    reader.load_state_dict(back)
    return reader.eval()


SAMPLING = {"temperature": 0.7, "top_k": 50, "repetition_penalty": 1.05}
"""The demo's own defaults: a small model reads better well below temperature 1."""


def export_critic(
    folder: Path, model: BertForSequenceClassification, tokenizer: Tokenizer
) -> BertForSequenceClassification:
    """Writes the critic's folder; returns the model with the weights as stored, in f32 on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    c = model.config
    weights = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_act": c.hidden_act,
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads, "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_position_embeddings, "type_vocab_size": c.type_vocab_size,
        "layer_norm_eps": c.layer_norm_eps, "pad_token_id": c.pad_token_id, "dtype": "float16",
        "id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
    })  # fmt: skip
    write_tokenizer(folder, tokenizer, {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": c.max_position_embeddings,
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
    })  # fmt: skip
    reader = BertForSequenceClassification(c)
    reader.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return reader.eval()
