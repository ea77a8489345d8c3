"""How the samples of a line model compare with the text it was trained on.

    python benchmarks/quality.py NAME FILE [--count 10000]

Draws samples from a model in the local store and prints what share of them is
distinct, new (not a line of FILE), and copied from the training split of FILE.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from app.charlm.decoder import Row
from app.charlm.sampling import Sampling
from app.charlm.vocabulary import BOUNDARY
from app.cli import console
from app.engine.resident import Loaded
from app.training.prepare import prepare
from app.wiring.environment import read_settings
from app.wiring.full import FullInstallation

ROWS = 250
LENGTH = 100


def sample(loaded: Loaded, count: int, seed: int) -> list[str]:
    """``count`` lines at temperature 1."""
    drawn = []
    for first in range(0, count, ROWS):
        rows = [
            Row(row, BOUNDARY, Sampling(seed=seed), np.zeros(0, np.int32), np.zeros(0, np.float32),
                choice=first + row, boundary=True)
            for row in range(min(ROWS, count - first))
        ]  # fmt: skip
        state_BLS = loaded.decoder.initial_state(len(rows))
        ids_BQ = loaded.decoder.write(rows, state_BLS, [LENGTH] * len(rows)).ids_BQ
        drawn += [loaded.vocabulary.decode(i for i in ids if i > BOUNDARY) for ids in ids_BQ]
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    with FullInstallation(read_settings()) as installation:
        registry = installation.registry
        registry.synchronise()
        artifact = registry.open(registry.resolve(arguments.name))
    parameters = artifact.card.lineage.parameters
    prepared = prepare(
        arguments.file,
        format="lines",
        validation_fraction=float(parameters["validation_fraction"] or 0),
        test_fraction=float(parameters["test_fraction"] or 0),
        seed=artifact.card.seed or 0,
    )
    text = prepared.vocabulary.decode
    trained = {text(record) for record in prepared.corpus.records("train")}
    lines = set(arguments.file.read_text("utf-8-sig").splitlines())
    drawn = sample(Loaded.from_artifact(artifact), arguments.count, seed=1)
    count = len(drawn)
    console.out.print(f"{arguments.name}: {count:,} samples at temperature 1")
    console.out.print(f"distinct  {len(set(drawn)) / count:.1%}")
    console.out.print(f"new       {sum(each not in lines for each in drawn) / count:.1%}")
    console.out.print(f"verbatim  {sum(each in trained for each in drawn) / count:.1%}")


if __name__ == "__main__":
    main()
