"""The books as training windows for the writers.

A passage is what the writer should produce: a few paragraphs, one a line, ended by `<|endoftext|>`. Every window starts
where a passage starts, because that is where a prompt stands: position 0 is the first token of a paragraph (or of a
sentence inside a long one), never the middle of a word.
"""

import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"
HELD_OUT = 0.04
"""The share of each book, one run of neighbouring paragraphs, that no model sees in training."""
SPEECH = re.compile(r'"([^"]+)"')
SENTENCE_START = re.compile(r'(?<=[.!?]) (?=[A-Z"])')


def load_books(folder: Path) -> list[list[str]]:
    """The paragraphs of each book under `folder`; paragraphs are separated by blank lines."""
    paths = sorted(path for path in folder.glob("*.txt"))
    if not paths:
        raise SystemExit(f"no books (*.txt) in {folder}; give the folder with --text")
    return [[p.strip() for p in path.read_text("utf-8").split("\n\n") if p.strip()] for path in paths]


def split(books: list[list[str]], seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Runs of neighbouring paragraphs to train on, and runs to test on, one of the latter from each book."""
    rng = random.Random(seed)
    train, held_out = [], []
    for book in books:
        length = int(len(book) * HELD_OUT)
        start = rng.randrange(len(book) // 4, len(book) - length)
        train += [book[:start], book[start + length :]]
        held_out.append(book[start : start + length])
    return train, held_out


def spoken(paragraph: str) -> str | None:
    """What is said in a paragraph that starts with speech, without quotation marks and without "said Anne".

    People type `I have an idea!`, books print `"I have an idea!"`. Passages that open with these teach the writer to
    go on from an unquoted prompt. None for a paragraph that is no speech, or too little of it.
    """
    if not paragraph.startswith('"') or paragraph.count('"') % 2 or "\n" in paragraph:
        return None
    said = " ".join(SPEECH.findall(paragraph)).replace(" -", "").strip()
    if len(said) < 12 or len(said) < len(paragraph) // 2 or said[-1] == ",":
        return None
    return said


def train_tokenizer(runs: list[list[str]], vocab_size: int) -> Tokenizer:
    """A byte-level BPE as GPT-2's, with `<|endoftext|>` as id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((p for run in runs for p in run), trainer)
    return tokenizer


class Passages:
    """Token windows that start at passages, drawn without replacement until every start has been used."""

    def __init__(self, runs: list[list[str]], tokenizer: Tokenizer, seed: int):
        encode = lambda text: tokenizer.encode(text).ids
        self.end, self.newline = tokenizer.token_to_id(END_OF_TEXT), encode("\n")
        self.rng = random.Random(seed)
        self.paragraphs = [[encode(p) for p in run] for run in runs]
        # (run, index of the paragraph, its tokens from the passage's start on)
        self.starts = []
        for r, run in enumerate(runs):
            for i, paragraph in enumerate(run):
                said = spoken(paragraph)
                self.starts.append((r, i, [self.paragraphs[r][i]] + ([encode(said)] if said else [])))
                last = 0
                for match in SENTENCE_START.finditer(paragraph):
                    whole = paragraph.count('"', 0, match.start()) % 2 == 0
                    if whole and match.end() - last > 300 and len(paragraph) - match.end() > 80:
                        last = match.end()
                        self.starts.append((r, i, [encode(paragraph[last:])]))
        self.queue = []

    def tokens(self) -> int:
        """Tokens in the text, each paragraph once."""
        return sum(len(p) + 1 for run in self.paragraphs for p in run)

    def window(self, length: int) -> list[int]:
        """`length` tokens from a fresh start on; passages end at the first paragraph past a drawn length."""
        if not self.queue:
            self.queue = self.rng.sample(self.starts, len(self.starts))
        run, index, openings = self.queue.pop()
        window = list(self.rng.choice(openings))
        passage_start, target = 0, self.rng.randint(40, 150)
        while len(window) < length:
            index += 1
            ended = index >= len(self.paragraphs[run])
            if ended:
                run, index = (run + 1) % len(self.paragraphs), 0
            if ended or len(window) - passage_start >= target:
                window.append(self.end)
                passage_start, target = len(window), self.rng.randint(40, 150)
            else:
                window += self.newline
            window += self.paragraphs[run][index] if self.paragraphs[run] else []
        return window[:length]

    def batch(self, size: int, length: int) -> np.ndarray:
        """`(size, length)` token ids."""
        return np.array([self.window(length) for _ in range(size)], dtype=np.int64)
