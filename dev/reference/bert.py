"""BERT and DistilBERT classifiers of a few thousand weights, one quirk a case, and what transformers answers."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

import layouts
from goldens import digits, write_golden

VOCAB, CONTEXT = 56, 32
CLS, SEP, PAD = 2, 3, 0
TEXTS = (
    [CLS, SEP],
    [CLS, 17, SEP],
    [CLS, 40, 9, 9, 31, 22, SEP],
    [CLS, 5, 54, 33, 12, 48, 27, 6, 19, 44, SEP],
    [CLS, *[(i * i * 5 + i * 3) % (VOCAB - 5) + 5 for i in range(CONTEXT - 2)], SEP],
)
PAIR = [CLS, 17, 40, 8, SEP, 51, 23, SEP]
PAIR_TYPES = [0, 0, 0, 0, 0, 1, 1, 1]
LEAST_DIFFERENCE = 1e-3
LEAST_MARGIN = 0.02
MOST_SEEDS = 400
NAMES = {"sadness": 0, "joy": 1, "love": 2, "anger": 3, "fear": 4}


@dataclass
class Case:
    name: str
    quirk: str
    config: dict = field(default_factory=dict)
    labels: list = field(default_factory=lambda: ["LABEL_0", "LABEL_1"])
    labels_in_config: bool = True
    layers: int = 1
    width: int = 32
    heads: int = 2
    distil: bool = False
    gamma_beta: bool = False
    heads_of_pretraining: bool = False
    classifier: bool = True
    position_ids: bool = False
    dtype: torch.dtype = torch.float32
    shards: int = 1
    mistaken: dict = field(default_factory=dict)


# Where width is beside the point, half of it keeps the repository small.
NARROW = {"width": 16}

CASES = [
    Case("bert-two-labels", "`bert.` prefix, two labels that the config does not name",
         labels_in_config=False, layers=2, mistaken={"hidden_act": "gelu_new"}),
    Case("bert-gamma-beta", "LayerNorm's weights named `gamma` and `beta`", gamma_beta=True, **NARROW),
    Case("bert-unused-cls", "`cls.*` heads of the pretraining left in the file", heads_of_pretraining=True, **NARROW),
    Case("bert-position-ids", "an I64 `bert.embeddings.position_ids` buffer, as transformers 3 to 4.30 wrote",
         position_ids=True, **NARROW),
    Case("bert-one-label", "one label without a problem type: a sigmoid", labels=["LABEL_0"], **NARROW),
    Case("bert-regression", "one label, `problem_type` regression: the logit itself", {"problem_type": "regression"},
         labels=["LABEL_0"], **NARROW),
    Case("bert-five-labels", "five named labels, one of which holds: a softmax",
         {"problem_type": "single_label_classification"}, labels=list(NAMES)),
    Case("bert-multi-label", "four named labels, each holds or not: sigmoids",
         {"problem_type": "multi_label_classification"}, labels=["toxic", "insult", "threat", "spam"], **NARROW),
    Case("bert-relu", "`hidden_act` relu", {"hidden_act": "relu"}, mistaken={"hidden_act": "gelu"}),
    Case("bert-gelu-new", "`hidden_act` gelu_new, the one with tanh", {"hidden_act": "gelu_new"}, layers=2,
         mistaken={"hidden_act": "gelu"}),
    Case("bert-width-36", "hidden size 36, which 32 does not divide: 3 heads of 12", width=36, heads=3),
    Case("bert-f16-sharded", "F16 weights in two shards", layers=2, dtype=torch.float16, shards=2),
    Case("bert-without-classifier", "a pretrained BERT with `cls.*` and no classifier: to be refused",
         gamma_beta=True, heads_of_pretraining=True, classifier=False, **NARROW),
    Case("distilbert-two-labels", "DistilBERT, named labels", layers=2, labels=["NEGATIVE", "POSITIVE"], distil=True,
         mistaken={"activation": "relu"}),
]


def make(case: Case, root: Path) -> None:
    """Write the case's folder, with the first seed whose answers differ from text to text."""
    head = {"case": case.name, "quirk": case.quirk, "task": "classify"}
    for seed in range(1, MOST_SEEDS):
        folder = root / case.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = write_checkpoint(case, folder, seed)
        if not case.classifier:
            write_golden(folder, head | {"seed": seed, "refused": "classifier.weight"})
            return
        golden = compute(case, model)
        if golden is not None:
            write_golden(folder, head | {"seed": seed} | golden)
            return
    raise SystemExit(f"{case.name}: no seed below {MOST_SEEDS} makes a good test")


def write_checkpoint(case: Case, folder: Path, seed: int):
    """Write the files and answer the model that transformers reads back from them, in f64."""
    config = (distilbert_config if case.distil else bert_config)(case)
    if case.labels_in_config and case.classifier:
        config["id2label"] = {str(i): label for i, label in enumerate(case.labels)}
        config["label2id"] = {label: i for i, label in enumerate(case.labels)}
    if case.distil:
        model_class, config_class = DistilBertForSequenceClassification, DistilBertConfig
    else:
        model_class, config_class = BertForSequenceClassification, BertConfig
    tensors = {}
    if case.classifier:
        tensors |= draw(model_class(config_class(**config)), seed)
    if case.heads_of_pretraining:
        pretraining = draw(BertForPreTraining(BertConfig(**config)), seed)
        repeated = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
        tensors |= {name: tensor for name, tensor in pretraining.items() if name not in repeated}
    if case.gamma_beta:
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, old in names.items():
            tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor.to(case.dtype) for name, tensor in tensors.items()}
    if case.position_ids:
        tensors["bert.embeddings.position_ids"] = torch.arange(CONTEXT).unsqueeze(0)
    layouts.write_safetensors(folder, config, tensors, case.shards)
    if not case.classifier:
        return None
    model, info = model_class.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert all(key.startswith("cls.") or "position_ids" in key for key in info["unexpected_keys"]), info
    return model.eval()


def bert_config(case: Case) -> dict:
    return {
        "architectures": ["BertForSequenceClassification" if case.classifier else "BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": case.width, "initializer_range": 0.02, "intermediate_size": 48,
        "layer_norm_eps": 1e-12, "max_position_embeddings": CONTEXT, "model_type": "bert",
        "num_attention_heads": case.heads, "num_hidden_layers": case.layers, "pad_token_id": PAD,
        "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": VOCAB, **case.config,
    }


def distilbert_config(case: Case) -> dict:
    return {
        "activation": "gelu", "architectures": ["DistilBertForSequenceClassification"], "attention_dropout": 0.1,
        "dim": case.width, "dropout": 0.1, "hidden_dim": 48, "initializer_range": 0.02,
        "max_position_embeddings": CONTEXT, "model_type": "distilbert", "n_heads": case.heads,
        "n_layers": case.layers, "output_past": True, "pad_token_id": PAD, "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True, "vocab_size": VOCAB,
        **case.config,
    }


def draw(model: torch.nn.Module, seed: int) -> layouts.Tensors:
    """Seeded weights under which attention looks around, GELU bends and the classes lie apart."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, like in model.state_dict().items():
        noise = torch.from_numpy(generator.standard_normal(like.shape)).float()
        if "embeddings" in name and like.dim() == 2:
            tensors[name] = 0.6 * noise
        elif like.dim() == 2:  # (out, in)
            sharp = any(part in name for part in ("query", "key", "q_lin", "k_lin"))
            tensors[name] = noise * (1.8 if sharp else 1.2) / like.shape[1] ** 0.5
        elif "norm" in name.lower() and name.endswith("weight"):
            tensors[name] = 1 + 0.3 * noise
        else:
            tensors[name] = 0.2 * noise
    return tensors


@torch.no_grad()
def compute(case: Case, model) -> dict | None:
    """What to expect of the checkpoint, or None where this seed makes a poor test."""
    assert [model.config.id2label[i] for i in range(len(case.labels))] == case.labels
    function = score_function(model.config)
    inputs = [{"ids": ids} for ids in TEXTS]
    if not case.distil:
        inputs.append({"ids": PAIR, "token_type_ids": PAIR_TYPES})
    logits = [run(model, [item])[0] for item in inputs]
    if torch.stack(logits).std(dim=0).min() < 0.15:
        return None
    if len(case.labels) > 1:
        best = torch.stack(logits).topk(2)
        if len(set(best.indices[:, 0].tolist())) == 1 or (best.values[:, 0] - best.values[:, 1]).min() < LEAST_MARGIN:
            return None
    if case.mistaken:
        config = type(model.config)(**(model.config.to_dict() | case.mistaken))
        wrong = type(model)._from_config(config, attn_implementation="eager", dtype=torch.float64).eval()
        wrong.load_state_dict(model.state_dict())
        moved = max((run(wrong, [item])[0] - row).abs().max().item() for item, row in zip(inputs, logits))
        if moved < LEAST_DIFFERENCE:
            return None

    batch = run(model, inputs)
    assert (batch - torch.stack(logits)).abs().max() < 1e-9, "padding leaks"
    single = type(model)._from_config(model.config, attn_implementation="eager", dtype=torch.float32).eval()
    single.load_state_dict(model.state_dict())
    f32_error = (run(single, inputs) - batch).abs().max().item()
    assert f32_error < 1e-5, f"{case.name}: f32 is {f32_error} away from f64, too far for a tolerance of 1e-4"
    texts = [item | answer(row, function, case.labels) for item, row in zip(inputs, logits)]
    return {
        "labels": case.labels, "function": function, "texts": texts,
        "batch": {**padded(inputs), "logits": digits(batch)},
    }


def score_function(config) -> str:
    """What turns logits into scores. Source: transformers' `TextClassificationPipeline.postprocess`."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def answer(logits: torch.Tensor, function: str, labels: list[str]) -> dict:
    scores = {"none": logits, "sigmoid": logits.sigmoid(), "softmax": logits.softmax(dim=0)}[function]
    return {"logits": digits(logits), "scores": digits(scores), "label": labels[logits.argmax()]}


def padded(inputs: list[dict]) -> dict:
    """The inputs as one batch: `PAD` on the right, `attention_mask` 0 there."""
    longest = max(len(item["ids"]) for item in inputs)

    def fill(row: list[int], value: int) -> list[int]:
        return row + [value] * (longest - len(row))

    batch = {
        "ids": [fill(item["ids"], PAD) for item in inputs],
        "attention_mask": [fill([1] * len(item["ids"]), 0) for item in inputs],
    }
    if any("token_type_ids" in item for item in inputs):
        batch["token_type_ids"] = [fill(item.get("token_type_ids", []), 0) for item in inputs]
    return batch


def run(model, inputs: list[dict]) -> torch.Tensor:
    batch = {name: torch.tensor(rows) for name, rows in padded(inputs).items()}
    return model(input_ids=batch.pop("ids"), **batch).logits
