"""The model cards, filled in with what was measured."""

import json
from pathlib import Path

LICENCE = """## Licence

The weights and the tokenizer: MIT OR Apache-2.0, at your choice, like the rest of the project.
"""
BOOKS = """17 public-domain English novels and children's books, all first published before 1929 (Alcott, Baum, Burnett, Carroll,
Conan Doyle, Grahame, Jerome, Montgomery, Nesbit, Porter, Stevenson, Webster), 6.4 MB, taken from the GITenberg
editions of Project Gutenberg texts without their headers. One run of neighbouring paragraphs of each book, 4 %, was
held out."""


REVIEWS = {
    "reviews": "`dev/train/reviews.tsv`: 100 sentences in the manner of reviews, written by hand before the model; some of their phrases then went into the templates",
    "movie-snippets": "120 sentences of real film reviews (60 and 60), measured on between versions of the trainer",
    "fresh-movies": "60 other sentences of real film reviews (30 and 30), measured once, after the model was final",
    "fresh-products": "40 other sentences of real reviews of DVD players (20 and 20), measured once, after the model was final",
    "amazon-snippets": "78 sentences of real reviews of phones and players (59 praise, 19 blame), measured on between versions",
}
"""What the files are; the snippets are from the ground truth of Hutto and Gilbert 2014 (github.com/cjhutto/vaderSentiment)."""


def block(kind: str, value) -> str:
    """A fenced block that a test can read: json and `kind` on the fence."""
    if isinstance(value, list):
        body = "[\n" + ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    else:
        body = json.dumps(value, ensure_ascii=False)
    return f"```json {kind}\n{body}\n```\n"


def sampled_text(samples: list[str]) -> str:
    return "\n".join("> " + sample.replace("\n", "\n> ") + "\n" for sample in samples)


def writer_card(path: Path, facts: dict) -> None:
    """`facts`: name, title, layers, parameters, how, loss, loss_note, command, greedy, samples, settings."""
    path.write_text(
        f"""# {facts["title"]}

A GPT-2 of {facts["layers"]} blocks and 224 channels, 7 heads, {facts["parameters"]:,} parameters, 256 positions, a byte-level BPE of 4096
tokens, tied head. Trained from nothing for this project. It writes sentences and dialogue in the manner of
old children's books. Most sentences are readable and many are grammatical; sense seldom lasts beyond one of them, words are
sometimes made up, and characters of the books walk in. It knows nothing and is here to show the engine.

## Data

{BOOKS}
A part of the passages that open with speech were also shown without their quotation marks, so that the model goes on
from a prompt typed without them. `<|endoftext|>` ends a passage. The books carry attitudes of their time.

## Training

{facts["how"]}

```sh
{facts["command"]}
```

## Loss

{facts["loss"]:.3f} nats a token on the held-out text (8 batches of 32 windows of 128 tokens), measured on the weights as stored.
{facts["loss_note"]}

## Files

`model.gguf` keeps matrices in 8 bits (Q8_0: 32 weights share an f16 scale), vectors in f32 and positions in f16.
`generation_config.json` carries the sampling that reads best: {facts["settings"]}.

## Samples

Greedy, in PyTorch in f32 from the stored weights; a test asserts the ids:

{block("greedy", facts["greedy"])}
Sampled with the defaults above, seeds 0 to {len(facts["samples"]) - 1}, not picked:

{sampled_text(facts["samples"])}
{LICENCE}""",
        "utf-8",
    )


def critic_card(path: Path, facts: dict) -> None:
    """`facts`: parameters, steps, generated, command, scores, and measured: name of a file -> (right, all)."""
    rows = "\n".join(
        f"| {REVIEWS.get(name, name)} | {right} of {count}, {right / count:.0%} |"
        for name, (right, count) in facts["measured"].items()
    )
    path.write_text(
        f"""# Critic

A BERT for sequence classification, NEGATIVE or POSITIVE: 2 blocks of 96 channels, 3 heads, {facts["parameters"]:,} parameters,
128 positions, a lower-case WordPiece of 5200 pieces. Trained from nothing for this project, to score short English texts.

## Data

No review was used in training. The critic learned from

- sentences of praise and blame put together from a hand-made lexicon and templates (`dev/train/lexicon.py`,
  `dev/train/opinions.py`) about films, books, products, food and service, with negation, contrast and comparison;
- quiet sentences of the books below, as they are for "neither", or with a few words from VADER's lexicon or ours put in;
- sentences of the books that VADER scores clearly, with VADER's verdict as a weak label.

{BOOKS}
VADER (`vaderSentiment` 3.3.2, Hutto and Gilbert 2014, MIT) is used in training only.

## Training

{facts["steps"]} steps of 64 texts drawn afresh, AdamW to 1.5e-3 with a linear fall, f32.

```sh
{facts["command"]}
```

## Accuracy

| measured on | right |
| --- | --- |
{rows}

On fresh texts of its own generated kind it gets {facts["generated"]:.0%}. The samples are small: ten points
more or less are within chance for the smaller ones. The last two rows are the honest estimate. The real reviews come
from the ground truth published with VADER (github.com/cjhutto/vaderSentiment), those rated 1 or more either way; VADER
by itself gets 64 % and 83 % of the first two, 50 % and 63 % of the last two. No large labelled set was at hand.

The critic sees words more than sense: irony, and praise or blame without a telling word, are beyond it.

## Scores

Probability of the named label, in PyTorch in f32 from the stored weights (`model.safetensors`, f16); a test asserts them:

{block("scores", facts["scores"])}
{LICENCE}""",
        "utf-8",
    )
