"""How numbers are written into `golden.json`."""

import json
from pathlib import Path

import torch


def digits(values: torch.Tensor):
    """Nested lists, seven significant digits a number: what f32 can tell apart."""
    if values.dim() == 0:
        return float(f"{values.item():.7g}")
    return [digits(value) for value in values]


def write_golden(folder: Path, golden: dict) -> None:
    """A line a field and a line an entry of a list, so that a change shows as a small diff."""

    def entry(value) -> str:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"))

    lines = []
    for key, value in golden.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(entry(item) for item in value) + "\n ]"
        else:
            text = entry(value)
        lines.append(f" {entry(key)}: {text}")
    (folder / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
