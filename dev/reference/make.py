"""Write the small checkpoints, tokenizers and goldens that the engine's tests read. See README.md.

    make.py            write them all
    make.py --check    write them elsewhere and compare with what is committed
    make.py NAME ...   write these cases only
"""

import filecmp
import sys
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

import bert
import gpt2
import tiny_tokenizers

DATA = Path(__file__).resolve().parents[2] / "crates" / "engine" / "tests" / "data"


def write(data: Path, only: list[str]) -> None:
    for family in (gpt2, bert):
        for case in family.CASES:
            if not only or case.name in only:
                family.make(case, data / "reference")
                folder = data / "reference" / case.name
                size = sum(file.stat().st_size for file in folder.iterdir())
                print(f"{case.name:26} {size / 1000:6.0f} kB  {case.quirk}", flush=True)
    if not only or "tokenizers" in only:
        tiny_tokenizers.make(data / "tokenizers")


def differences(committed: Path, fresh: Path) -> list[str]:
    files = {path.relative_to(root) for root in (committed, fresh) for path in root.rglob("*") if path.is_file()}
    _, differing, missing = filecmp.cmpfiles(committed, fresh, sorted(map(str, files)), shallow=False)
    return sorted(differing + missing)


def main() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if sys.argv[1:] != ["--check"]:
        write(DATA, sys.argv[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), [])
        differing = [
            f"{part}/{file}"
            for part in ("reference", "tokenizers")
            for file in differences(DATA / part, Path(folder) / part)
        ]
    sys.exit("\n".join(["differs from what is committed:", *differing]) if differing else 0)


if __name__ == "__main__":
    main()
