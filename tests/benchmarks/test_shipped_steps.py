"""A step with each shipped model: `make bench ARGS="-k shipped_steps"` (minutes: all are compiled).

Energy, forces, charges and, where there is a cell, stress through ASE, compiled, float32, one
thread, each model in a process of its own on a structure of its kind. The table that it prints
stands in RESULTS.md, from where `python -m tools.docs` takes the column "step" of the tables of
models. Beside the median stands the fastest of the steps: on a machine that others use it is the
one that they disturbed least. PHICALC_BENCH_CACHE keeps what is compiled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
from ase import Atoms

from phicalc.doctor import reference_structures
from phicalc.registry import find_model, models_for_work
from phicalc.structures import water_box

from .test_organics import droplet
from .test_peers import rock_salt, timed

STEPS = 200


def water() -> Atoms:
    return water_box(64)


def brine() -> Atoms:
    atoms = water_box(64)
    atoms.symbols[0], atoms.symbols[96] = "Na", "Cl"
    del atoms[[1, 2, 97, 98]]
    return atoms


def largest(name: str) -> Callable[[], Atoms]:
    """Return what reads the largest of the structures that `phicalc doctor` compares."""
    return lambda: max(reference_structures(find_model(name)), key=len)


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "dipeptides": largest("dipeptides"),
    "organics": lambda: droplet(50),
    "rocksalts": rock_salt,
    "salt-water": brine,
    "tio2-water": largest("tio2-water"),
    "water": water,
    "water-small": water,
}


def test_shipped_steps(tmp_path: Path, record: Callable[[str, float], None]) -> None:
    cache = Path(os.environ.get("PHICALC_BENCH_CACHE", tmp_path / "cache"))
    assert STRUCTURES.keys() == models_for_work().keys()
    print("\n| shipped model | structure | atoms | step (ms) | median (ms) |")
    print("|---|---|---|---|---|")
    for name, make in STRUCTURES.items():
        atoms, path = make(), tmp_path / f"{name}.extxyz"
        ase.io.write(path, Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
        found = timed(sys.executable, f"model:{name}", "float32", STEPS, path, cache)
        assert found is not None
        print(
            f"| {name} | {atoms.get_chemical_formula()} | {len(atoms)} | {found['fastest_ms']:.1f} "
            f"| {found['ms']:.1f} |",
            flush=True,
        )
        record(f"step of {name}, {len(atoms)} atoms (ms)", found["fastest_ms"])
