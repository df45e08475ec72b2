"""Tokenizers of about 300 tokens in the files of the hub, and what they make of awkward text.

The ids come from two implementations that share no code and must agree: the `tokenizers` library reading
`tokenizer.json`, and plain Python (for BPE `plain_bpe` below, for WordPiece transformers' old `BertTokenizerLegacy`)
reading the vocabulary files.
"""

import json
import shutil
from pathlib import Path

import regex
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from goldens import write_golden

END_OF_TEXT = "<|endoftext|>"
# Merges are learnt from these lines, so that they hold English, a contraction, spaces, accents and an emoji.
LESSON = """\
The boy said that he had an idea, and the girl said it wasn't the best idea that she had heard this year.
"I'm not sure," said the old man, "but there's a thing in the garden that wants to be heard."
They went into the garden and there they found 1234 things, 12 of them in the old café.
    The café's owner, Zoë, said: "naïve! naïve! 😀😀 They've been here all the time."
"""
TEXTS = [
    "", " ", "   ", "\n", "a", "I have an idea!", " I have an idea", "The boy said that the garden wasn't there.",
    "I'm I'M they've THEY'VE we'll you'd it's 'tis rock'n'roll", "tabs\tand\nlines\r\n\r\nand  two   three    spaces ",
    "   leading and trailing   ", "1234567890 3.14 1,000,000 x2y3", "...!?!?--(([[{{}}]])) a.b,c;d:e",
    "café naïve Zoë", "cafe\u0301 nai\u0308ve Zoe\u0308", "A\u030a\u0327\u0323 stacked marks o\u0302\u0301\u0309",
    "😀 👍🏽 👩‍👩‍👧‍👦 🇫🇷 ❤️", "日本語 中文 한국어 カタカナ", "mix日本of中文scripts", "שלום עולם مرحبا بالعالم",
    "\u202eright to left\u202c \u200f\u200e", "Здравствуй, мир! Γειά σου Κόσμε İstanbul ẞ ŒUVRE ﬁne",
    "zero\u200bwidth\u200djoin\ufeffbom soft\u00adhyphen", "no\u00a0break\u2003em\u3000ideographic\u2028line",
    "control \u0001\u0002\u001b[0m\u007f\u0085 end", "\ufffd replacement \ue000 private \U0010fffd last",
    "x" * 99, "garden" * 17, "supercalifragilisticexpialidocious " * 3, "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ½ ² ① Ⅷ", "THE OLD MAN",
    "under_score snake_case __init__",
    "<|endoftext|>", "The end.<|endoftext|>The boy", "a <|endoftext|> b", "<|endoftext|><|endoftext|>", "<|endof text|>",
    "[SEP]", "the [SEP] boy", "the[SEP]boy [CLS]", "a [MASK] garden [PAD] [UNK]", "[sep] [ SEP ] [MASKED]",
]

# The old Python tokenizer composes accents (NFC) where case is kept; the `tokenizers` library, which is what everyone
# runs, does not. The goldens hold the library's answer.
DISPUTED = ["cafe\u0301 nai\u0308ve Zoe\u0308"]


def make(root: Path) -> None:
    gpt2(root / "gpt2-tiny")
    bert(root / "bert-tiny", lowercase=True)
    bert(root / "bert-tiny-cased", lowercase=False)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def gpt2(folder: Path) -> None:
    """Byte-level BPE: 256 bytes, some merges, and `<|endoftext|>` last as in GPT-2."""
    fresh(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=310, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LESSON.splitlines(keepends=True), trainer)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=True, special=True)])
    learnt = json.loads(tokenizer.to_str())
    end = tokenizer.token_to_id(END_OF_TEXT)
    learnt["model"]["vocab"][END_OF_TEXT] = end
    (folder / "tokenizer.json").write_text(json.dumps(learnt, ensure_ascii=False, indent=1) + "\n")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocab = dict(sorted(learnt["model"]["vocab"].items(), key=lambda item: item[1]))
    merges = [tuple(merge) for merge in learnt["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = {"model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")

    byte_of = {char: byte for byte, char in byte_alphabet().items()}
    piece_of = {i: END_OF_TEXT.encode() if i == end else bytes(byte_of[c] for c in token) for token, i in vocab.items()}
    texts = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert ids == plain_bpe(text, vocab, merges), text
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        assert decoded == text == b"".join(piece_of[i] for i in ids).decode(), text
        texts.append({"text": text, "ids": ids, "ids_without_special": ids, "decoded": tokenizer.decode(ids),
                      "decoded_with_special": decoded})
    # Ids that end or start in the middle of a character: U+FFFD for each broken part.
    broken = []
    for raw in (b"\xf0\x9f", b"ab\xe6\x97", b"\x98\x80 tail", b"\xff\xfeok", b"\xf0\x9f\x98 \xc3", b"\xc3\xa9\xc3"):
        ids = [vocab[byte_alphabet()[byte]] for byte in raw]
        assert tokenizer.decode(ids) == raw.decode(errors="replace"), raw
        broken.append({"ids": ids, "decoded": raw.decode(errors="replace")})
    head = {"tokenizer": folder.name, "vocab_size": len(vocab), "special": {END_OF_TEXT: end}}
    write_golden(folder, head | {"texts": texts, "broken": broken})


def byte_alphabet() -> dict[int, str]:
    """Byte to printable character. Source: Radford et al. 2019, `bytes_to_unicode` of the published encoder."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def plain_bpe(text: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> list[int]:
    """GPT-2's byte-level BPE in the paper's words: split, then merge the earliest learnt pair until none is left."""
    rank = {pair: i for i, pair in enumerate(merges)}
    word = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    ids = []
    for i, part in enumerate(text.split(END_OF_TEXT)):
        ids += [vocab[END_OF_TEXT]] if i else []
        for piece in word.findall(part):
            symbols = [byte_alphabet()[byte] for byte in piece.encode()]
            while len(symbols) > 1:
                best = min(zip(symbols, symbols[1:]), key=lambda pair: rank.get(pair, len(rank)))
                if best not in rank:
                    break
                merged, at = [], 0
                while at < len(symbols):
                    both = tuple(symbols[at : at + 2]) == best
                    merged.append("".join(best) if both else symbols[at])
                    at += 2 if both else 1
                symbols = merged
            ids += [vocab[symbol] for symbol in symbols]
    return ids


def bert(folder: Path, lowercase: bool) -> None:
    """WordPiece. The special tokens do not lie where a guess would put them; the real vocabulary has `[UNK]` at 100."""
    fresh(folder)
    letters = "abcdefghijklmnopqrstuvwxyz" + ("" if lowercase else "ABCDEFGHIJKLMNOPQRSTUVWXYZéïë")
    whole = "the boy girl said that not good bad movie idea garden old man end of script mix right left an have is was"
    endings = "s ing ed en ly 've ##"
    cased = [] if lowercase else ["The", "THE", "Zoë", "café", "I"]
    tokens = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [*letters, *"0123456789", *"!\"'(),-./:;?[]{}_<|>", *"日本中語한мирש", "😀", "½"]
    tokens += [f"##{char}" for char in [*letters, *"0123456789", "국", "и", "р", "ל"]]
    tokens += whole.split() + cased + [f"##{ending}" for ending in endings.split()]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab))
    settings = {"do_lower_case": lowercase, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")

    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    special = {token: vocab[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", special["[CLS]"]), ("[SEP]", special["[SEP]"])],
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))

    slow = BertTokenizerLegacy(str(folder / "vocab.txt"), do_lower_case=lowercase)
    texts = []
    for text in TEXTS:
        encoded = tokenizer.encode(text)
        agreed = encoded.ids == slow(text)["input_ids"]
        assert agreed or (not lowercase and text in DISPUTED), (folder.name, text, encoded.tokens)
        with_special = tokenizer.decode(encoded.ids, skip_special_tokens=False)
        assert with_special == joined(encoded.tokens), (folder.name, text, with_special)
        texts.append({
            "text": text, "ids": encoded.ids,
            "ids_without_special": tokenizer.encode(text, add_special_tokens=False).ids,
            "decoded": tokenizer.decode(encoded.ids), "decoded_with_special": with_special,
        })
    head = {"tokenizer": folder.name, "vocab_size": len(vocab), "special": special}
    write_golden(folder, head | {"texts": texts})


def joined(tokens: list[str]) -> str:
    """WordPiece put back together: pieces glued, the spaces before `.?!,` taken out, apostrophes left alone."""
    text = " ".join(tokens).replace(" ##", "")
    for mark in ".?!,":
        text = text.replace(f" {mark}", mark)
    return text
