"""Betz's Transformer against stored outputs of the reference: the largest errors of everything that was stored.

python benchmarks/ndt3_parity.py FOLDER [FOLDER …]

Each folder holds config.json, weights.safetensors and cases case_*; a case may hold any of the files described in
docs/background/transformer.md. Both the stored batches and the raw trials are encoded and compared.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from _common import finish, need
from betz.model.presets import parameters, preset
from betz.testing.parity import compare_case
from betz.testing.reference import cases_of, open_reference


def main() -> None:
    """Compare all cases of all folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.time()
    for folder in arguments.folders:
        for name in ("config.json", "weights.safetensors"):
            need(folder / name, "a folder of reference outputs holds it")
        need(next(iter(folder.glob("case_*")), folder / "case_*"), "a folder of reference outputs holds cases")
    worst: dict[str, float] = {}
    worst_grad, each, counts = 0.0, dict[str, dict[str, float]](), dict[str, int]()
    table = Table("case", "compared", "largest absolute error")
    for folder, case in cases_of(arguments.folders):
        reference = open_reference(folder)
        counts[folder.name] = sum(p.numel() for p in reference.model.parameters())
        found, grads, number = compare_case(reference, case)
        name = f"{folder.name}/{case.name}"
        each[name] = found | ({"grad": max(grads.values())} if grads else {})
        worst_grad = max([worst_grad, *grads.values()])
        for key, error in found.items():
            worst[key] = max(worst.get(key, 0.0), error)
        table.add_row(name, str(number), ", ".join(f"{key} {error:.1e}" for key, error in each[name].items()))
    Console(width=150).print(table)
    result = {
        "cases": list(each),
        "worst": worst,
        "worst_grad": worst_grad,
        "parameters": {**counts, **{size: parameters(preset(size)) for size in ("45m", "350m", "700m")}},
        "each": each,
    }
    finish(result, started)


if __name__ == "__main__":
    main()
