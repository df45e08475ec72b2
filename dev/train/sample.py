"""Text from a writer, in PyTorch: the greedy path that tests assert, and sampled text to read."""

import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

MARGIN = 0.05
"""A greedy sample ends before the first token whose logit leads the next by less: 8-bit arithmetic may swap those."""


@torch.no_grad()
def greedy(model: GPT2LMHeadModel, tokenizer: Tokenizer, prompt: str, new_tokens: int) -> dict:
    """At most `new_tokens` ids, fewer at the end of text or where the choice is too close."""
    ids = tokenizer.encode(prompt).ids
    new = []
    while len(new) < new_tokens:
        top = model(torch.tensor([ids + new])).logits[0, -1].topk(2)
        best = top.indices[0].item()
        if top.values[0] - top.values[1] < MARGIN or best == model.config.eos_token_id:
            break
        new.append(best)
    return {"prompt": prompt, "max_new_tokens": len(new), "ids": new, "text": tokenizer.decode(new)}


@torch.no_grad()
def sample(model: GPT2LMHeadModel, tokenizer: Tokenizer, prompt: str, seed: int, max_length: int = 128,
           temperature: float = 1.0, top_k: int = 50, repetition_penalty: float = 1.0) -> str:  # fmt: skip
    """The prompt and its sampled continuation."""
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    while len(ids) < max_length:
        logits = model(torch.tensor([ids])).logits[0, -1]
        seen = torch.tensor(sorted(set(ids)))
        logits[seen] = torch.where(
            logits[seen] > 0, logits[seen] / repetition_penalty, logits[seen] * repetition_penalty
        )
        values, indices = (logits / temperature).topk(top_k)
        choice = indices[torch.multinomial(values.softmax(-1), 1, generator=generator)].item()
        if choice == model.config.eos_token_id:
            break
        ids.append(choice)
    return tokenizer.decode(ids)
