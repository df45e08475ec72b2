"""Trains the writer: GPT-2 with 6 blocks of 224 channels over 4096 byte-level BPE tokens."""

import math
import time
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import GPT2Config, GPT2LMHeadModel

from corpus import Passages

CONTEXT = 256
WINDOWS = ((16, 128), (16, 128), (16, 128), (8, 256))
"""Batches in turn: mostly windows of the default length, and every fourth batch the whole context."""


def config(vocab_size: int, layers: int, width: int = 224) -> GPT2Config:
    """GPT-2's layout. Training runs the tanh GELU as one fused kernel; the file says `gelu_new`, the same function."""
    return GPT2Config(
        vocab_size=vocab_size, n_positions=CONTEXT, n_embd=width, n_layer=layers, n_head=width // 32,
        activation_function="gelu_pytorch_tanh", bos_token_id=0, eos_token_id=0,
        embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip


def optimizer_of(model: torch.nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW; matrices and embeddings decay, norms and biases do not."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def rate(step: int, steps: int) -> float:
    """The learning rate's share of its peak: up in 100 steps, flat, then down in a line over the last 40 %.

    Until the fall begins nothing depends on `steps`, so a run can be made shorter or longer on the way.
    """
    return min((step + 1) / 100, 1.0, (steps - step) / (0.4 * steps))


def autocast(device: torch.device):
    """bf16 on a GPU. On a CPU f32: without AMX it is twice as fast as bf16 at these sizes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def workers() -> tuple[int, int]:
    """This process's rank among the workers, and their number."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_gradients(model: torch.nn.Module) -> None:
    """Sets every worker's gradients to their mean."""
    if workers()[1] > 1:
        grads = [p.grad for p in model.parameters()]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= workers()[1]
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads])):
            grad.copy_(mean.view_as(grad))


def cross_entropy(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats a token; `logits`: `(batch, length - 1, vocab)` for the tokens `ids[:, 1:]`."""
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, held_out: list[torch.Tensor]) -> float:
    """Mean loss over fixed windows of unseen text."""
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for ids in held_out:
        ids = ids.to(device)
        with autocast(device):
            total += cross_entropy(model(ids[:, :-1]).logits, ids).item()
    model.train()
    return total / len(held_out)


def fixed_windows(passages: Passages, batches: int) -> list[torch.Tensor]:
    return [torch.from_numpy(passages.batch(32, 128)) for _ in range(batches)]


def save(path: Path, model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def train(model: GPT2LMHeadModel, passages: Passages, held_out: list[torch.Tensor], steps: int, checkpoint: Path,
          lr: float = 2e-3, loss_of=None) -> GPT2LMHeadModel:  # fmt: skip
    """Trains `model` in place for `steps` and leaves checkpoints; goes on from one that is there.

    Every worker draws the same batches and takes its share of the rows, so their number does not change the model.
    `loss_of(model, ids)` is the loss of a batch; by default the cross-entropy of the next token.
    """
    device = next(model.parameters()).device
    optimizer = optimizer_of(model, lr)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        print(f"going on from step {first}", flush=True)
    if loss_of is None:
        loss_of = lambda model, ids: cross_entropy(model(ids[:, :-1]).logits, ids)
    batch = lambda step: passages.batch(*WINDOWS[step % len(WINDOWS)])
    for step in range(first):
        batch(step)  # the batches that the checkpoint has seen
    rank, world = workers()
    model.train()
    tokens, mean, began = 0, math.nan, time.time()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, steps)
        ids = torch.from_numpy(batch(step)[rank::world]).to(device)
        with autocast(device):
            loss = loss_of(model, ids)
        loss.backward()
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += ids.numel() * world
        mean = loss.item() if math.isnan(mean) or step < 20 else 0.98 * mean + 0.02 * loss.item()
        if rank > 0:
            continue
        if (step + 1) % 20 == 0:
            speed = tokens / (time.time() - began)
            print(f"step {step + 1}/{steps} loss {mean:.3f} {speed:.0f} tokens/s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            save(checkpoint, model, optimizer, step + 1)
        if (step + 1) % 400 == 0 or step + 1 == steps:
            print(f"step {step + 1} held-out loss {held_out_loss(model, held_out):.4f}", flush=True)
    if world > 1:
        dist.barrier()
    return model.eval()
