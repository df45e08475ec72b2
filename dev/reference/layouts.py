"""Write a model's tensors into a folder the way the model hub's repositories hold them."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
EXACT = gguf.GGMLQuantizationType.F32


def write_safetensors(folder: Path, config: dict, tensors: Tensors, shards: int = 1) -> None:
    """`config.json` beside `model.safetensors`, or beside `shards` files and their index."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        begin, end = shard * len(names) // shards, (shard + 1) * len(names) // shards
        part = {name: tensors[name] for name in names[begin:end]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_gguf(
    file: Path, config: dict, tensors: Tensors, kinds: dict[str, str], alignment: int, tokens: list[str]
) -> None:
    """One GGUF file of a GPT-2, named and turned as llama.cpp's converter does it.

    Matrices lie as `(out, in)`, so Conv1D's are transposed; position embeddings and vectors stay F32, and the other
    matrices take the first of `kinds` whose key is in their name. `tokens`, where given, become the vocabulary arrays
    that such files carry. `tensors` has transformers' names.
    """
    writer = gguf.GGUFWriter(file, "gpt2")
    if alignment != gguf.GGUF_DEFAULT_ALIGNMENT:
        writer.add_custom_alignment(alignment)
    writer.add_name(file.parent.name)
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
        writer.add_token_merges(["a b", "c d"])
        writer.add_bos_token_id(config["bos_token_id"])
        writer.add_eos_token_id(config["eos_token_id"])
        writer.add_add_bos_token(False)
    names = gguf_names(config["n_layer"])
    for name, tensor in tensors.items():
        array = as_gguf(name, tensor)
        kind = EXACT
        if array.ndim == 2 and "wpe" not in name:
            kind = gguf.GGMLQuantizationType[next(kind for part, kind in kinds.items() if part in name)]
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), quantise(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(file: Path, like: Tensors, layers: int) -> Tensors:
    """The file's tensors, dequantised by the `gguf` package, under the names and in the shapes of `like`."""
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    names = gguf_names(layers)
    tensors = {}
    for name, original in like.items():
        tensor = stored.pop(names.get_name(name, (".weight", ".bias")))
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        array = array.T if is_conv1d(name) else array
        tensors[name] = torch.from_numpy(np.array(array)).reshape(original.shape)
        error = (tensors[name] - original).abs().max() / original.abs().max()
        assert error < 0.15, f"{name}: quantised {error:.3f} away from what was meant"
    assert not stored, f"tensors that no one asked for: {list(stored)}"
    return tensors


def gguf_names(layers: int) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, layers)


def is_conv1d(name: str) -> bool:
    return name.endswith(".weight") and any(part in name for part in ("c_attn", "c_proj", "c_fc"))


def as_gguf(name: str, tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((tensor.T if is_conv1d(name) else tensor).float().numpy())


def quantise(matrix: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """`(rows, columns)` as rows of blocks. The `gguf` package can pack every kind but the K ones."""
    pack = {gguf.GGMLQuantizationType.Q4_K: pack_q4_k, gguf.GGMLQuantizationType.Q6_K: pack_q6_k}.get(kind)
    if pack is None:
        return gguf.quants.quantize(matrix, kind)
    return pack(matrix.reshape(-1, 256)).reshape(len(matrix), -1)


def pack_q4_k(blocks: np.ndarray) -> np.ndarray:
    """`(n, 256)` to `(n, 144)`: f16 `d`, f16 `dmin`, 8 six-bit scales and minima in 12 bytes, 256 nibbles.

    A weight is `d * scale * nibble - dmin * minimum`, eight times 32 weights with a scale and a minimum each. Rounded
    to nearest and no better: the goldens test the reading, not the rounding.
    """
    n = len(blocks)
    parts = blocks.reshape(n, 8, 32)
    minimum = np.maximum(-parts.min(axis=2), 0)
    scale = (parts.max(axis=2) + minimum) / 15
    d = np.float16(scale.max(axis=1, keepdims=True) / 63)
    dmin = np.float16(minimum.max(axis=1, keepdims=True) / 63)
    sc = np.rint(scale / d).clip(1, 63).astype(np.uint8)
    mn = np.rint(minimum / dmin).clip(0, 63).astype(np.uint8)
    steps = (parts + (np.float32(dmin) * mn)[..., None]) / (np.float32(d) * sc)[..., None]
    nibbles = np.rint(steps).clip(0, 15).astype(np.uint8).reshape(n, 4, 2, 32)
    low, high = slice(0, 4), slice(4, 8)
    scales = [sc[:, low] | (sc[:, high] >> 4 << 6), mn[:, low] | (mn[:, high] >> 4 << 6)]
    scales.append((sc[:, high] & 15) | (mn[:, high] << 4))
    packed = (nibbles[:, :, 0] | nibbles[:, :, 1] << 4).reshape(n, 128)
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), *scales, packed], axis=1)


def pack_q6_k(blocks: np.ndarray) -> np.ndarray:
    """`(n, 256)` to `(n, 210)`: low nibbles, high bit pairs, 16 signed scales, f16 `d`.

    A weight is `d * scale * (six bits - 32)`, sixteen times 16 weights with a scale each.
    """
    n = len(blocks)
    parts = blocks.reshape(n, 16, 16)
    peak = np.take_along_axis(parts, np.abs(parts).argmax(axis=2)[..., None], axis=2)[..., 0]
    scale = peak / -32
    d = np.float16(np.abs(scale).max(axis=1, keepdims=True) / 127)
    sc = np.rint(scale / d).clip(-128, 127).astype(np.int8)
    sc[sc == 0] = 1
    bits = np.rint(parts / (np.float32(d) * sc)[..., None]).clip(-32, 31).astype(np.int8) + 32
    bits = bits.astype(np.uint8)
    nibbles = (bits & 15).reshape(n, 2, 2, 64)
    pairs = (bits >> 4).reshape(n, 2, 4, 32)
    low = (nibbles[:, :, 0] | nibbles[:, :, 1] << 4).reshape(n, 128)
    high = sum(pairs[:, :, i] << (2 * i) for i in range(4)).astype(np.uint8).reshape(n, 64)
    return np.concatenate([low, high, sc.view(np.uint8), d.view(np.uint8)], axis=1)
