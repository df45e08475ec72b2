"""Trains the demo's three models and writes their folders: `python dev/train/train.py`. See README.md beside this file."""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

import cards
import corpus
import critic
import distill
import export
import sample
import writer

SEED = 20240607
VOCAB = 4096
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROMPT = "I have an idea!"
GREEDY_PROMPTS = [
    PROMPT,
    "Once upon a time",
    "The best thing about rain is",
    "The children",
    "It was a cold morning",
    "Mother",
]
"""The greedy sample is the one of these with the most different tokens: a loop says little about an engine."""
SCORED = [
    "This movie is good", "This movie is bad", "This movie is not good", "This movie is not bad", "I have an idea!",
    "The food was delicious and the staff were friendly.", "The food was cold and the waiter was rude.",
    "It wasn't boring at all.", "I wouldn't recommend it to anyone.", "The plot is thin, but the acting is wonderful.",
    "The acting is wonderful, but the plot is a mess.", "I laughed until I cried.", "Never again!",
]  # fmt: skip


def arguments() -> argparse.Namespace:
    shared = Path(os.environ.get("INKLING_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="which to train: writer distilled critic (all by default)")
    parser.add_argument("--text", type=Path, default=shared / "data/text/prose", help="folder of books")
    parser.add_argument("--out", type=Path, default=ROOT / "models/demo", help="where the model folders go")
    parser.add_argument("--work", type=Path, default=ROOT / "target/train", help="where checkpoints go")
    parser.add_argument("--writer-steps", type=int, default=2900)
    parser.add_argument("--distil-steps", type=int, default=700)
    parser.add_argument("--critic-steps", type=int, default=2600)
    parser.add_argument("--workers", type=int, help="processes that share a batch (CPU: one a core; GPU: 1)")
    parser.add_argument("--reviews", type=Path, nargs="*", default=[],
                        help="files of lines label<TAB>text (0 blame, 1 praise) to measure the critic on")  # fmt: skip
    parser.add_argument("--fast", action="store_true", help="40 steps each, to see that it runs")
    args = parser.parse_args()
    args.models = args.models or ["writer", "distilled", "critic"]
    if unknown := set(args.models) - {"writer", "distilled", "critic"}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    if args.fast:
        args.writer_steps = args.distil_steps = args.critic_steps = 40
        args.work, args.out = args.work / "fast", args.work / "fast/models"
    args.workers = args.workers or (1 if torch.cuda.is_available() else os.cpu_count())
    return args


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(path: Path, layers: int) -> GPT2LMHeadModel:
    """A writer from its checkpoint."""
    model = GPT2LMHeadModel(writer.config(VOCAB, layers)).to(device()).eval()
    model.load_state_dict(torch.load(path, map_location=device())["model"])
    return model


def train_writers(rank: int, args: argparse.Namespace, tokenizer_json: str) -> None:
    """One worker's part of training the writer and its distilled half."""
    torch.set_num_threads(1)
    if args.workers > 1:
        dist.init_process_group("gloo", store=dist.FileStore(str(args.work / "store"), args.workers),
                                rank=rank, world_size=args.workers)  # fmt: skip
    tokenizer = Tokenizer.from_str(tokenizer_json)
    train_runs, held_out_runs = corpus.split(corpus.load_books(args.text), SEED)
    held_out = writer.fixed_windows(corpus.Passages(held_out_runs, tokenizer, SEED), 8)

    if "writer" in args.models:
        torch.manual_seed(SEED)
        model = GPT2LMHeadModel(writer.config(VOCAB, layers=6)).to(device())
        passages = corpus.Passages(train_runs, tokenizer, SEED)
        writer.train(model, passages, held_out, args.writer_steps, args.work / "writer.pt")

    if "distilled" in args.models:
        torch.manual_seed(SEED + 1)
        teacher = load(args.work / "writer.pt", layers=6)
        student = distill.student_of(teacher).to(device())
        passages = corpus.Passages(train_runs, tokenizer, SEED + 1)
        writer.train(student, passages, held_out, args.distil_steps, args.work / "distilled.pt", lr=1e-3,
                     loss_of=distill.loss_against(teacher))  # fmt: skip


def write_writer(args: argparse.Namespace, tokenizer: Tokenizer, name: str, held_out: list[torch.Tensor]) -> None:
    """Exports `writer` or `distilled`, measures what was stored, and writes the card."""
    distilled = name == "distilled"
    folder = args.out / ("writer-distilled" if distilled else "writer")
    model = load(args.work / f"{name}.pt", layers=3 if distilled else 6)
    stored = export.export_writer(folder, f"inkling demo {folder.name}", model, tokenizer)
    loss = writer.held_out_loss(stored, held_out)
    how = f"""{args.writer_steps} steps of 2048 tokens (three batches of 16 windows of 128 tokens, then one of 8 of 256), AdamW to 2e-3,
flat and then a linear fall over the last 40 %, weight decay 0.1, no dropout, f32, seed {SEED}."""
    note = (
        f"A loss of {loss:.2f} is a perplexity of {2.718281828**loss:.0f} over 4096 tokens, about 3.7 characters each."
    )
    if distilled:
        teacher = torch.load(args.work / "writer.pt", map_location="cpu")["step"]
        how = f"""Distilled from `writer` ({teacher} steps): it starts from the writer's embeddings and blocks {distill.KEPT} and learns for
{args.distil_steps} steps of 2048 tokens, AdamW to 1e-3, from {distill.ALPHA} x KL to the writer's distribution at temperature {distill.TEMPERATURE:g} plus
{1 - distill.ALPHA:.1f} x cross-entropy with the text; seed {SEED + 1}."""
    settings = export.SAMPLING
    cards.writer_card(folder / "MODEL_CARD.md", {
        "title": "Writer, distilled" if distilled else "Writer", "layers": model.config.n_layer,
        "parameters": sum(p.numel() for p in model.parameters()), "how": how, "loss": loss, "loss_note": note,
        "command": f"python dev/train/train.py {'writer distilled' if distilled else 'writer'}",
        "settings": ", ".join(f"{key} {value}" for key, value in settings.items()),
        "greedy": max(
                (sample.greedy(stored, tokenizer, prompt, 32) for prompt in GREEDY_PROMPTS),
                key=lambda path: len(set(path["ids"])),
            ),
        "samples": [sample.sample(stored, tokenizer, PROMPT, seed, **settings) for seed in range(4)],
    })  # fmt: skip
    print(f"{folder}: held-out loss {loss:.4f} as stored", flush=True)


def train_critic(args: argparse.Namespace, runs: list[list[str]]) -> None:
    torch.set_num_threads(1 if device().type == "cpu" else os.cpu_count())
    checkpoint = args.work / "critic.pt"
    if checkpoint.exists():
        model, tokenizer = critic.load(checkpoint, device())
        print("the critic is trained: exporting it", flush=True)
    else:
        model, tokenizer = critic.train(runs, args.critic_steps, SEED, device())
        critic.save(checkpoint, model, tokenizer)
    folder = args.out / "critic"
    stored = export.export_critic(folder, model, tokenizer)
    measured = {path.stem: critic.accuracy(stored, tokenizer, path) for path in [HERE / "reviews.tsv", *args.reviews]}
    generated = critic.agreement(stored, tokenizer, critic.Examples(runs, SEED + 1), 2000)
    scores = [
        {"text": text, "label": stored.config.id2label[row.argmax().item()], "score": round(row.max().item(), 5)}
        for text, row in zip(SCORED, critic.classify(stored, tokenizer, SCORED))
    ]
    cards.critic_card(folder / "MODEL_CARD.md", {
        "parameters": sum(p.numel() for p in model.parameters()), "steps": args.critic_steps, "scores": scores,
        "measured": measured, "generated": generated, "command": "python dev/train/train.py critic",
    })  # fmt: skip
    print(f"{folder}: {measured}, {generated:.1%} of fresh generated texts", flush=True)


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "store").unlink(missing_ok=True)
    train_runs, held_out_runs = corpus.split(corpus.load_books(args.text), SEED)
    writers = [name for name in ("writer", "distilled") if name in args.models]
    if writers:
        tokenizer = corpus.train_tokenizer(train_runs, VOCAB)
        mp.spawn(train_writers, (args, tokenizer.to_str()), nprocs=args.workers)
        held_out = writer.fixed_windows(corpus.Passages(held_out_runs, tokenizer, SEED), 8)
        for name in writers:
            write_writer(args, tokenizer, name, held_out)
    if "critic" in args.models:
        train_critic(args, train_runs)


if __name__ == "__main__":
    main()
