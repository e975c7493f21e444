"""Active learning beside random sampling, ethanol from nothing: `-k improve`.

For three seeds the same loop runs twice, choosing by uncertainty and at random. Printed are the
labels, processor minutes, errors and checks passed after every round, and at how many labels the
certificate's molecule part was passed first. ``PHICALC_SEEDS=1`` takes the first seed alone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule

from phicalc.improvement import ImprovementResult, config_of, improve

pytest.importorskip("tblite")

SEEDS = range(int(os.environ.get("PHICALC_SEEDS", "3")))
OVERRIDES = ("first_labels=40", "round_labels=25", "steps=1200", "budget.max_labels=215")


def labels_to_pass(result: ImprovementResult) -> float:
    """Return the labels at which the certificate was passed; infinite if it never was."""
    return next((r.total_calls for r in result.records if r.is_passed), float("inf"))


def test_improve_beside_random_sampling(tmp_path: Path) -> None:
    start = tmp_path / "ethanol.xyz"
    ase.io.write(start, molecule("CH3CH2OH"))
    needed: dict[str, list[float]] = {"uncertainty": [], "random": []}
    for seed in SEEDS:
        for way, found in needed.items():
            output = f"output={tmp_path / way}_{seed}"
            begin = time.process_time()
            config = config_of([start], [*OVERRIDES, output, f"select={way}", f"seed={seed}"])
            result = improve(config, lambda _: None)
            minutes = (time.process_time() - begin) / 60
            print(f"\nseed {seed}, {way}, {minutes:.1f} min of processor time: {result.line}")
            for record in result.records:
                error = record.errors["valid_forces_mae"]
                print(f"  {record.total_calls:4} labels  {error:6.1f} meV/Å  {record.certificate}")
            found.append(labels_to_pass(result))
    print(f"\nlabels to pass: {needed}")
    assert sum(needed["uncertainty"]) < sum(needed["random"])
