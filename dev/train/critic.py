"""Trains the critic: a small BERT that says whether a text praises or blames.

It learns from three kinds of text: opinions put together from the lexicon (opinions.py), quiet sentences of the books
with a word of praise or blame from VADER's lexicon added, and sentences of the books that VADER itself scores clearly.
"""

import random
import re
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

import lexicon
from opinions import NEGATIVE, POSITIVE, Writer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH = 128
VOCAB = 5200
RATE = 1.5e-3


def config(vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size, hidden_size=96, num_hidden_layers=2, num_attention_heads=3, intermediate_size=384,
        max_position_embeddings=LENGTH, hidden_act="gelu", hidden_dropout_prob=0.15, pad_token_id=0,
        id2label={NEGATIVE: "NEGATIVE", POSITIVE: "POSITIVE"}, label2id={"NEGATIVE": NEGATIVE, "POSITIVE": POSITIVE},
    )  # fmt: skip


OURS = {
    POSITIVE: [lexicon.GOOD, lexicon.GOOD, lexicon.GOOD_THINGS, lexicon.GOOD_QUALITIES, lexicon.WELL],
    NEGATIVE: [lexicon.BAD, lexicon.BAD, lexicon.BAD_THINGS, lexicon.BAD_QUALITIES, lexicon.BADLY],
}


class Examples:
    """An endless supply of labelled texts; all choices come from `seed`."""

    def __init__(self, runs: list[list[str]], seed: int):
        self.rng = random.Random(seed)
        self.opinions = Writer(self.rng)
        vader = SentimentIntensityAnalyzer()
        strong = {w: v for w, v in vader.lexicon.items() if abs(v) >= 1.2 and re.fullmatch("[a-z-]{3,}", w)}
        self.words = {
            POSITIVE: [w for w, v in strong.items() if v > 0],
            NEGATIVE: [w for w, v in strong.items() if v < 0],
        }
        self.quiet, self.clear = [], []
        sentences = [
            s for run in runs for p in run for s in re.split(r"(?<=[.!?]) ", p.replace('"', "")) if 15 < len(s) < 140
        ]
        for sentence in self.rng.sample(sentences, min(len(sentences), 25_000)):
            score = vader.polarity_scores(sentence)["compound"]
            if score == 0:
                self.quiet.append(sentence)
            elif abs(score) > 0.5:
                self.clear.append((sentence, POSITIVE if score > 0 else NEGATIVE))

    def spliced(self) -> tuple[str, float]:
        """A quiet sentence with words of one polarity put in, now and then outvoting one of the other."""
        label = self.rng.choice([NEGATIVE, POSITIVE])
        words = self.rng.choice(self.quiet).split()[: self.rng.randint(0, 16)]
        count = self.rng.randint(1, 3)
        added = [self.telling(label) for _ in range(count)]
        if count > 1 and self.rng.random() < 0.3:
            added.append(self.telling(1 - label))
        for word in added:
            words.insert(self.rng.randint(0, len(words)), word)
        return " ".join(words), label

    def telling(self, label: int) -> str:
        """A word of praise or blame, from VADER's lexicon or ours."""
        if self.rng.random() < 0.5:
            return self.rng.choice(self.words[label])
        return self.rng.choice(self.rng.choice(OURS[label]))

    def example(self) -> tuple[str, float]:
        """A text and how probably it praises: 0, 1, or 0.5 where nothing is said for or against."""
        draw = self.rng.random()
        if draw < 0.42:
            return self.opinions.sentence()
        if draw < 0.56:
            text, label = self.opinions.sentence()
            quiet = self.rng.choice(self.quiet).split()[: self.rng.randint(2, 20)]
            return self.rng.choice(["{0} {1}", "{1} {0}", "{0}, {1}", "{0} and {1}"]).format(
                " ".join(quiet), text
            ), label
        if draw < 0.84:
            return self.spliced()
        if draw < 0.94:
            return self.rng.choice([self.rng.choice(self.quiet), self.opinions.quiet()]), 0.5
        return self.rng.choice(self.clear)


def train_tokenizer(examples: Examples, runs: list[list[str]]) -> Tokenizer:
    """A lower-casing WordPiece as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    texts = [examples.example()[0] for _ in range(60_000)]
    texts += [p for run in runs for p in run][::8]
    texts += 3 * [" ".join(examples.words[POSITIVE]), " ".join(examples.words[NEGATIVE])]
    # The reviews' own words weigh more than their few places in the templates.
    texts += 40 * [" ".join(lexicon.NEUTRAL), " ".join(lexicon.GOOD), " ".join(lexicon.BAD)]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    tokenizer.enable_truncation(LENGTH)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, padded to the longest."""
    rows = [e.ids for e in tokenizer.encode_batch(texts)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


@torch.no_grad()
def classify(model: BertForSequenceClassification, tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """`(texts, 2)` probabilities."""
    model.eval()
    device = next(model.parameters()).device
    chunks = []
    for start in range(0, len(texts), 64):
        ids, mask = (t.to(device) for t in encode(tokenizer, texts[start : start + 64]))
        chunks.append(model(ids, attention_mask=mask).logits.softmax(-1).cpu())
    return torch.cat(chunks)


def accuracy(model: BertForSequenceClassification, tokenizer: Tokenizer, path: Path) -> tuple[int, int]:
    """How many it gets right of a file of lines `label<TAB>text`, and how many there are."""
    rows = [line.split("\t", 1) for line in path.read_text("utf-8").splitlines() if line]
    guesses = classify(model, tokenizer, [text for _, text in rows]).argmax(-1).tolist()
    return sum(guess == int(label) for guess, (label, _) in zip(guesses, rows)), len(rows)


def agreement(model: BertForSequenceClassification, tokenizer: Tokenizer, examples: Examples, count: int) -> float:
    """Accuracy over `count` fresh training-like texts."""
    drawn = [(text, label) for text, label in (examples.example() for _ in range(count)) if label != 0.5]
    texts, labels = zip(*drawn)
    return (classify(model, tokenizer, list(texts)).argmax(-1) == torch.tensor(labels)).float().mean().item()


def save(path: Path, model: BertForSequenceClassification, tokenizer: Tokenizer) -> None:
    torch.save({"model": model.state_dict(), "tokenizer": tokenizer.to_str()}, path)


def load(path: Path, device: torch.device) -> tuple[BertForSequenceClassification, Tokenizer]:
    state = torch.load(path, map_location=device)
    tokenizer = Tokenizer.from_str(state["tokenizer"])
    model = BertForSequenceClassification(config(tokenizer.get_vocab_size())).to(device)
    model.load_state_dict(state["model"])
    return model.eval(), tokenizer


def train(runs: list[list[str]], steps: int, seed: int, device: torch.device):
    """The trained model and its tokenizer."""
    torch.manual_seed(seed)
    examples = Examples(runs, seed)
    tokenizer = train_tokenizer(examples, runs)
    model = BertForSequenceClassification(config(tokenizer.get_vocab_size())).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, fused=True)
    schedule = lambda step: min((step + 1) / 200, 1.0, (steps - step) / (0.7 * steps))
    mean, began = 0.7, time.time()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule(step)
        texts, labels = zip(*(examples.example() for _ in range(64)))
        ids, mask = encode(tokenizer, list(texts))
        praise = torch.tensor(labels, device=device, dtype=torch.float)
        logits = model(ids.to(device), attention_mask=mask.to(device)).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.stack([1 - praise, praise], -1), label_smoothing=0.05)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean += 0.02 * (loss.item() - mean)
        if (step + 1) % 100 == 0:
            print(f"critic step {step + 1}/{steps} loss {mean:.3f} {time.time() - began:.0f} s", flush=True)
    return model.eval(), tokenizer
