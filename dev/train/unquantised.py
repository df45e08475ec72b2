"""Trains the demo writers a little further and keeps them in f32: `python dev/train/unquantised.py FOLDER`.

Of the demo writers only 8-bit files are left, on which rounding to 8 bits loses nothing any more. What comes out here are
models of the same size and quality whose weights lie on no grid, so that `inkling bench --loss` tells what is lost. With
`--wide` a writer of a width that 128 divides is trained from the start as well: it is kept as GPT-2 is.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

import corpus
import distill
import export
import train
import writer

DEMO = train.ROOT / "models/demo"


def stored(name: str) -> GPT2LMHeadModel:
    """A demo writer with the weights of its file."""
    model = GPT2LMHeadModel(writer.config(train.VOCAB, layers=3 if name == "writer-distilled" else 6))
    model.load_state_dict(export.read_gguf(DEMO / name / "model.gguf", model))
    return model


def steps_of(matrix: torch.Tensor) -> torch.Tensor:
    """The distance of neighbouring values in Q8_0, for each weight of a matrix as GGUF keeps it."""
    blocks = matrix.detach().reshape(-1, export.BLOCK)
    return (blocks.abs().amax(1, keepdim=True) / 127).expand_as(blocks).reshape(matrix.shape)


def report_distances(before: GPT2LMHeadModel, after: GPT2LMHeadModel) -> None:
    """Prints how far the weights went and how far they are from what 8 bits can hold, in steps of Q8_0."""
    moved, off = [], []
    was, now = before.state_dict(), after.state_dict()
    for ours, (theirs, transposed) in export.gguf_tensors(after).items():
        if now[theirs].ndim == 2 and ours != "position_embd.weight":
            old, new = (weights[theirs].T if transposed else weights[theirs] for weights in (was, now))
            moved.append(((new - old).abs() / steps_of(old)).flatten())
            places = new / steps_of(new)
            off.append((places - places.round()).abs().flatten())
    moved, off = torch.cat(moved), torch.cat(off).nanmean()
    print(f"moved by {moved.nanmedian():.1f} steps (median), {(moved > 0.5).float().mean():.1%} by more than half a step;"
          f" {off:.3f} steps from the nearest one (evenly spread: 0.242, as the largest of 32 is on one)", flush=True)  # fmt: skip


def main() -> None:
    shared = Path(os.environ.get("INKLING_SHARED", train.ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where the model folders and the held-out text go")
    parser.add_argument("--text", type=Path, default=shared / "data/text/prose", help="folder of books")
    parser.add_argument("--steps", type=int, default=240, help="of 2048 tokens, for each model")
    parser.add_argument("--lr", type=float, default=1e-3, help="the learning rate's peak")
    parser.add_argument("--wide", type=int, default=0, metavar="STEPS", help="train a wide writer, too: 1000 steps do")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(train.SEED)
    train_runs, held_out_runs = corpus.split(corpus.load_books(args.text), train.SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "held-out.txt").write_text("\n".join(p for run in held_out_runs for p in run), "utf-8")
    tokenizer = Tokenizer.from_file(str(DEMO / "writer/tokenizer.json"))

    def go_on(name: str, model: GPT2LMHeadModel, steps: int, lr: float, loss_of=None) -> None:
        """Trains a model, and keeps it beside the files of the demo writer that it is like."""
        held_out = writer.fixed_windows(corpus.Passages(held_out_runs, tokenizer, train.SEED), 8)
        print(f"{name}: held-out loss {writer.held_out_loss(model, held_out):.4f} before", flush=True)
        passages = corpus.Passages(train_runs, tokenizer, train.SEED + 2)
        writer.train(model, passages, held_out, steps, args.out / f"{name}.pt", lr=lr, loss_of=loss_of)
        print(f"{name}: held-out loss {writer.held_out_loss(model, held_out):.4f} after", flush=True)
        folder = args.out / name
        folder.mkdir(exist_ok=True)
        weights = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        like = DEMO / (name if (DEMO / name).exists() else "writer")
        for file in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(like / file, folder)
        width = {"n_embd": model.config.n_embd, "n_head": model.config.n_head}
        config = json.loads((like / "config.json").read_text()) | width
        (folder / "config.json").write_text(json.dumps(config))

    for name in ("writer", "writer-distilled"):
        model = stored(name)
        loss_of = distill.loss_against(stored("writer").eval()) if name == "writer-distilled" else None
        go_on(name, model, args.steps, args.lr, loss_of)
        report_distances(stored(name), model)
    if args.wide:
        wide = writer.config(train.VOCAB, layers=6, width=256)
        go_on("writer-wide", GPT2LMHeadModel(wide), args.wide, 2e-3)


if __name__ == "__main__":
    main()
