"""Where runs of the water models start."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from ase import Atoms

from phicalc import PhiCalculator
from phicalc.md import MDConfig, initialise_velocities, run_md
from phicalc.relax import relax
from phicalc.structures import water_box

#: Name of a model, or its folder.
MODEL = os.environ.get("PHICALC_MODEL", "water-pbe0")
#: Logs, trajectories and pictures stay here.
RUNS = Path("runs")


HEAVY_HYDROGEN = 4.0  # amu


def make_hydrogen_heavy(atoms: Atoms) -> None:
    """Move mass from oxygen to hydrogen: a step of 1 fs is as good as 0.57 fs then.

    Masses do not enter averages of positions and cells.
    """
    hydrogen = atoms.numbers == 1
    moved = HEAVY_HYDROGEN - atoms.get_masses()[hydrogen][0]
    atoms.set_masses(atoms.get_masses() + np.where(hydrogen, moved, -2 * moved))


def equilibrated(dtype: str, steps: int, pressure: bool = False) -> Atoms:
    """64 waters from a lattice start, after `steps` of 0.5 fs under a strong thermostat.

    With `pressure` stress is computed from the start: what comes after needs no other function.
    """
    atoms = water_box(64)
    atoms.calc = PhiCalculator(MODEL, dtype=dtype, compile=True)
    if pressure:
        atoms.get_stress()
    relax(atoms, fmax=0.2, steps=40)
    initialise_velocities(atoms, 600.0, np.random.default_rng(1))
    config = MDConfig(
        temperature=300.0, timestep=0.5, steps=steps, thermostat_time=50.0, seed=1,
        log_pressure=pressure, velocities="keep",
    )  # fmt: skip
    run_md(atoms, config, RUNS / f"start_{dtype}", overwrite=True)
    return atoms
